"""The one way out: from a request to the signed, noisy reply or refusal."""
