"""Integer arithmetic, noise and rounding for private sums."""
