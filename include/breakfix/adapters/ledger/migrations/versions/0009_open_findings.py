"""What spoke on a node and has not been seen to end.

Revision ID: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: nothing is open until the next sweep says so."""
    op.execute(
        "ALTER TABLE breakfix.node_states ADD COLUMN open_findings text NOT NULL DEFAULT '[]'"
    )


def downgrade() -> None:
    """Drop it: a sweep makes it again of what speaks then."""
    op.execute("ALTER TABLE breakfix.node_states DROP COLUMN open_findings")
