"""Which documents are valid: one TUF repository, signed by the countries, checked by everyone."""
