"""Alembic migrations of the ledger, run by `breakfix.adapters.ledger.migrate`."""
