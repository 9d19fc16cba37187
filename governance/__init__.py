"""Governance: signed documents, policy decisions, the privacy ledger and the audit log."""
