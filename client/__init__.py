"""The national node: record sources, task kinds, the border, the Flower client, the daemon."""
