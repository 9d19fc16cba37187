"""A study's run: attempts, rounds, stored progress."""
