"""What was advised of each change.

Revision ID: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE breakfix.change_advices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL, scope text NOT NULL,
    advice text NOT NULL, reason text NOT NULL,
    nodes text NOT NULL, detail text NOT NULL,
    first_seen timestamptz NOT NULL, last_seen timestamptz NOT NULL, closed_at timestamptz
);
CREATE UNIQUE INDEX one_open_change_advice ON breakfix.change_advices (cluster, scope)
    WHERE closed_at IS NULL;
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop it: every advice is in the audit, too."""
    op.execute("DROP TABLE breakfix.change_advices")
