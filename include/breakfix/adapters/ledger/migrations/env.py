"""How Alembic runs our migrations: on `migrate`'s connection, in its transaction."""

from __future__ import annotations

from alembic import context

from breakfix.adapters.ledger.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    version_table="schema_version",
    version_table_schema=SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
