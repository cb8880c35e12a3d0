"""What a decoder is measured by on held-out snippets."""
