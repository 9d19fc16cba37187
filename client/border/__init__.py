"""The only way out of a node: from a request to the signed, noisy reply or to a refusal."""
