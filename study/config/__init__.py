"""The configuration: a typed tree, the search space, its reader."""
