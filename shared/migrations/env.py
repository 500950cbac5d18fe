"""Alembic's entry: runs the migrations on the connection that `upgrade` opened."""

from alembic import context

from shared.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    transactional_ddl=False,  # `upgrade` holds one transaction around all of it
)
context.run_migrations()
