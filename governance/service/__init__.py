"""What keeps a daemon observed and supervised: logs, metrics, health, and what systemd is told."""
