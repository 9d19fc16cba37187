"""What the coordinator's daemon does for its commands, and by itself."""
