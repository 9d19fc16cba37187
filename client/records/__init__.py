"""Where a node's records come from, and which patients a study may count."""
