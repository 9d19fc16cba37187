"""Which documents stand: one TUF repository, signed by the countries, checked by everyone."""
