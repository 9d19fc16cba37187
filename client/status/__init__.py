"""What the node's operator sees: `status`, health and metrics."""
