"""The signed documents that a node stores, and what follows from them."""
