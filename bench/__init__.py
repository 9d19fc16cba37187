"""Measurements of this project beside named peers, and their results."""
