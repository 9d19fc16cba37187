"""The append-only audit log: Merkle tree, signed notes, events, and an independent verifier."""
