"""The task kinds installed on a node: how each patient's contribution is computed."""
