"""What `pratique-node` commands do."""
