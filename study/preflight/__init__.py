"""Checks of all that a study needs, before it begins."""
