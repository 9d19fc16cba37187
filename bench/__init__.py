"""Side-by-side measurements against named peers, and the figures they gave."""
