"""The MDGAN: networks, losses, training, checkpoints, encoding."""
