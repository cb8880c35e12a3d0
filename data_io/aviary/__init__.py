"""Simulated birds whose song, surroundings and development are known."""
