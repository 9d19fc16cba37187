"""May this happen, and can we prove it did: documents, policy, privacy ledger, audit log."""
