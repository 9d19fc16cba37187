"""The append-only log: its tree, its signed notes, its events, and an independent verifier."""
