"""The regional coordinator: studies, rounds, the Flower server app, releases, services."""
