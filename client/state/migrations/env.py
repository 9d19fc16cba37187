"""Alembic's entry: migrates over the connection that `governance.runtime.database` passes in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
