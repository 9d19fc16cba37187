"""The services of the daemon: answers to the commands, and its own supervision of runs."""
