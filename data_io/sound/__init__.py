"""Sound files: their headers, their samples, and what is wrong with them."""
