"""What the node stores in its database: runs, replies, decisions, and the head of its log."""
