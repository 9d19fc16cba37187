"""Identities, certificates, signatures, sealing and the key store: the ground floor."""
