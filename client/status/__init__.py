"""What the node shows its operator: status, health and metrics."""
