"""What the coordinator makes of opened sums: models, evaluations, tables, released results."""
