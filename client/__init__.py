"""The national node: record sources, the door, task kinds, the Flower client, the daemon."""
