"""What each person answered, and how many a question takes.

Revision ID: 0005 (after 0006, which came first)
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE breakfix.approvals ADD COLUMN needed integer NOT NULL DEFAULT 1 CHECK (needed >= 1);
CREATE INDEX open_questions ON breakfix.approvals (cluster) WHERE decision = 'pending';

CREATE TABLE breakfix.approval_answers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL, case_id text NOT NULL,
    approval_id bigint NOT NULL REFERENCES breakfix.approvals,
    purpose text NOT NULL, asked_at timestamptz NOT NULL,
    approver text NOT NULL, is_yes boolean NOT NULL, channel text NOT NULL,
    at timestamptz NOT NULL, plan_hash text NOT NULL, note text NOT NULL,
    objection text NOT NULL,
    role text NOT NULL DEFAULT session_user,
    FOREIGN KEY (cluster, case_id) REFERENCES breakfix.cases
);
CREATE INDEX answers_of_case ON breakfix.approval_answers (cluster, case_id);
CREATE UNIQUE INDEX one_of_each_answer ON breakfix.approval_answers
    (approval_id, approver, is_yes, channel, at, plan_hash, md5(note));
"""

# Whoever writes an answer may say who gave it, but not as whom it was written.
KEPT = """
CREATE FUNCTION breakfix.answer_names_its_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.role := session_user;
    RETURN NEW;
END $$;
CREATE TRIGGER names_its_role BEFORE INSERT ON breakfix.approval_answers
    FOR EACH ROW EXECUTE FUNCTION breakfix.answer_names_its_role();

CREATE FUNCTION breakfix.answers_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'answers are append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON breakfix.approval_answers
    FOR EACH ROW EXECUTE FUNCTION breakfix.answers_are_append_only();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON breakfix.approval_answers
    FOR EACH STATEMENT EXECUTE FUNCTION breakfix.answers_are_append_only();
"""


def upgrade() -> None:
    """Make the table; questions asked before take one person, as they did."""
    op.execute(TABLES)
    op.execute(KEPT)


def downgrade() -> None:
    """Drop it: every answer is in the audit, too."""
    op.execute("DROP TABLE breakfix.approval_answers")
    op.execute("DROP FUNCTION breakfix.answer_names_its_role")
    op.execute("DROP FUNCTION breakfix.answers_are_append_only")
    op.execute("DROP INDEX breakfix.open_questions")
    op.execute("ALTER TABLE breakfix.approvals DROP COLUMN needed")
