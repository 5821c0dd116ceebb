"""Rates that all processes share.

Revision ID: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE breakfix.rates (
    cluster text NOT NULL, target text NOT NULL,
    free_at timestamptz NOT NULL,
    PRIMARY KEY (cluster, target)
);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop it: what it holds is over in seconds."""
    op.execute("DROP TABLE breakfix.rates")
