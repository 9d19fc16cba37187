"""The commands of `pratique-coordinator`, by topic."""
