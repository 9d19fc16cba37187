"""Released results: their form, their files, and the signature that readers verify."""
