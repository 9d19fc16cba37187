"""The work of the `pratique-node` commands."""
