"""Binds the rows that guard budget and release to the entries of the signed log."""
