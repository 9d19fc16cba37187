"""Four countries on one machine, with the real commands as real processes."""
