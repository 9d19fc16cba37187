"""What all daemons and commands share: database, local RPC, logs, health."""
