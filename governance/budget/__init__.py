"""The privacy budget: accounting and each node's ledger."""
