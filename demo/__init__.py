"""A demo of four countries on one machine, with the real commands as real processes."""
