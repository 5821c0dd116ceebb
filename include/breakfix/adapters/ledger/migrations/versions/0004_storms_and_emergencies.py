"""Strikes and breakers of storms, and emergencies.

Revision ID: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE breakfix.strikes (
    cluster text NOT NULL, kind text NOT NULL, value text NOT NULL, node text NOT NULL,
    at timestamptz NOT NULL, is_sick boolean NOT NULL,
    PRIMARY KEY (cluster, kind, value, node)
);
CREATE INDEX strikes_of_late ON breakfix.strikes (cluster, at);
CREATE TABLE breakfix.breakers (
    cluster text NOT NULL, kind text NOT NULL, value text NOT NULL,
    opened_at timestamptz, reason text NOT NULL,
    counts_from timestamptz, reset_by text NOT NULL,
    PRIMARY KEY (cluster, kind, value)
);
CREATE TABLE breakfix.emergencies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL, lifts text NOT NULL, lasts_s double precision NOT NULL,
    requester text NOT NULL, approver text NOT NULL, reason text NOT NULL,
    asked_at timestamptz NOT NULL, answer_by timestamptz NOT NULL,
    approved_at timestamptz, until timestamptz, ended_at timestamptz, ended_by text NOT NULL
);
CREATE INDEX emergencies_of_cluster ON breakfix.emergencies (cluster, id);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop them: each opening, reset and emergency is in the audit, too."""
    for table in ("emergencies", "breakers", "strikes"):
        op.execute(f"DROP TABLE breakfix.{table}")
