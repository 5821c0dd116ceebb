"""Circuit breakers that all task processes share.

Revision ID: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE breakfix.circuits (
    cluster text NOT NULL, name text NOT NULL,
    state text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures integer NOT NULL, until timestamptz, failed_at timestamptz,
    error text NOT NULL, version bigint NOT NULL,
    PRIMARY KEY (cluster, name)
);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLE)


def downgrade() -> None:
    """Drop it: a breaker that is forgotten is closed."""
    op.execute("DROP TABLE breakfix.circuits")
