"""A plain Flower app, as a user of Flower would write it."""
