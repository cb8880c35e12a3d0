"""Posterior predictive checks: songs that a model of songs samples, beside the bird's own."""
