"""Alembic's entry point: migrates over the connection from `governance.runtime.database`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
