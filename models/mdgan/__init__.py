"""The item decoder: MDGAN networks, losses, training, checkpoints, encoding."""
