"""The node's keys and its transport certificate."""
