"""What people say of review items and cases, and what was learned from it.

Revision ID: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE breakfix.reviews ADD COLUMN times_seen bigint NOT NULL DEFAULT 1;

CREATE TABLE breakfix.labellings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL,
    review_id bigint REFERENCES breakfix.reviews,
    case_id text NOT NULL,
    node text NOT NULL, topic text NOT NULL, marks text NOT NULL,
    at timestamptz NOT NULL, actor text NOT NULL, label text NOT NULL, note text NOT NULL,
    failure_class text, until timestamptz,
    CHECK ((review_id IS NULL) <> (case_id = ''))
);
CREATE INDEX labellings_of_review ON breakfix.labellings (cluster, review_id, id);
CREATE INDEX labellings_of_case ON breakfix.labellings (cluster, case_id, id);

CREATE TABLE breakfix.learning_reports (
    cluster text, day text, at timestamptz NOT NULL, body text NOT NULL,
    PRIMARY KEY (cluster, day)
);
"""


def upgrade() -> None:
    """Items that were there before have been seen at least once."""
    op.execute(TABLES)


def downgrade() -> None:
    """There is no way back: what people said is not thrown away by a tool."""
    msg = "this migration is not undone: it would delete what people said of reviews and cases"
    raise NotImplementedError(msg)
