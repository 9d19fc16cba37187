"""Identities, certificates, signatures, sealing and the key store: the lowest layer."""
