"""What the node keeps in its database: runs, replies, decisions, the head of its log."""
