"""One decoder for all birds and ages, or several."""
