"""Metrics of a decoder on held-out snippets."""
