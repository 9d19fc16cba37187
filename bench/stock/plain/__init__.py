"""A plain Flower app, as its users write one."""
