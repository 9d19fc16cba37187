"""What the coordinator computes from opened sums: models, evaluations, tables, results."""
