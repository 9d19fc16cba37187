"""The Cedar policy engine and the texts that come with it."""
