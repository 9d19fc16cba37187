"""The task kinds installed on a node: what each patient contributes to a release."""
