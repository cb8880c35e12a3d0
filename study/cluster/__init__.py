"""Ray: the connection, tasks, nodes, GPUs."""
