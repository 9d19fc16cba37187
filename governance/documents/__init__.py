"""Governance documents as frozen values: agreement, study, permit and others."""
