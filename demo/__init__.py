"""Four countries on one machine, driving the real commands as real processes."""
