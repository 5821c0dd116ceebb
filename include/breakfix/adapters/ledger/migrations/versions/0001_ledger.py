"""The ledger's first tables.

Revision ID: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE breakfix.meta (key text PRIMARY KEY, value text NOT NULL);
INSERT INTO breakfix.meta VALUES ('ledger_id', gen_random_uuid()::text);

CREATE TABLE breakfix.scopes (
    cluster text, kind text, value text, PRIMARY KEY (cluster, kind, value)
);

CREATE TABLE breakfix.cases (
    cluster text, id text,
    node text NOT NULL, node_uid text NOT NULL,
    fence integer NOT NULL CHECK (fence >= 1),
    state text NOT NULL, failure_class text NOT NULL, action text NOT NULL,
    confidence double precision NOT NULL,
    plan_hash text NOT NULL, reason text NOT NULL,
    opened_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    boot_id text NOT NULL, attempt integer NOT NULL, scopes text NOT NULL,
    requester text NOT NULL, held_by text NOT NULL,
    repaired_at timestamptz, deadline timestamptz, ended_at timestamptz, "end" text,
    detail text NOT NULL, state_since timestamptz NOT NULL,
    PRIMARY KEY (cluster, id),
    CHECK ((ended_at IS NULL) = ("end" IS NULL))
);
CREATE UNIQUE INDEX one_open_case ON breakfix.cases (cluster, node) WHERE ended_at IS NULL;
CREATE INDEX cases_of_node ON breakfix.cases (cluster, node, opened_at);

CREATE TABLE breakfix.leases (
    cluster text, kind text, value text, node text,
    case_id text NOT NULL, taken_at timestamptz NOT NULL,
    PRIMARY KEY (cluster, kind, value, node),
    FOREIGN KEY (cluster, kind, value) REFERENCES breakfix.scopes,
    FOREIGN KEY (cluster, case_id) REFERENCES breakfix.cases
);
CREATE INDEX leases_of_case ON breakfix.leases (cluster, case_id);

CREATE TABLE breakfix.steps (
    cluster text, case_id text, name text,
    fence integer NOT NULL, attempt integer NOT NULL, status text NOT NULL,
    started_at timestamptz NOT NULL, ended_at timestamptz, detail text NOT NULL,
    PRIMARY KEY (cluster, case_id, name),
    FOREIGN KEY (cluster, case_id) REFERENCES breakfix.cases
);

CREATE TABLE breakfix.approvals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL, case_id text NOT NULL, fence integer NOT NULL,
    purpose text NOT NULL, plan_hash text NOT NULL,
    asked_at timestamptz NOT NULL, expires_at timestamptz NOT NULL,
    decision text NOT NULL, approver text NOT NULL, channel text NOT NULL, note text NOT NULL,
    decided_at timestamptz,
    FOREIGN KEY (cluster, case_id) REFERENCES breakfix.cases
);
CREATE UNIQUE INDEX one_open_question
    ON breakfix.approvals (cluster, case_id, fence, purpose, plan_hash)
    WHERE decision = 'pending';
CREATE INDEX approvals_of_case ON breakfix.approvals (cluster, case_id);

CREATE TABLE breakfix.halts (
    cluster text PRIMARY KEY,
    level text NOT NULL, actor text NOT NULL, reason text NOT NULL, at timestamptz NOT NULL
);

CREATE TABLE breakfix.audit_heads (
    cluster text PRIMARY KEY, seq bigint NOT NULL, hash text NOT NULL
);
CREATE TABLE breakfix.audit (
    cluster text, seq bigint,
    at timestamptz NOT NULL, actor text NOT NULL, event text NOT NULL, subject text NOT NULL,
    detail text NOT NULL, previous_hash text NOT NULL, hash text NOT NULL,
    PRIMARY KEY (cluster, seq)
);
CREATE INDEX audit_of_subject ON breakfix.audit (cluster, subject, seq);

CREATE TABLE breakfix.refusals (
    cluster text, source text, node text, reason text, failure_class text, action text, scope text,
    text text NOT NULL, first_seen timestamptz NOT NULL, last_seen timestamptz NOT NULL,
    PRIMARY KEY (cluster, source, node, reason, failure_class, action, scope)
);

CREATE TABLE breakfix.incidents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL, scope text NOT NULL, nodes text NOT NULL, failure_classes text NOT NULL,
    reason text NOT NULL,
    first_seen timestamptz NOT NULL, last_seen timestamptz NOT NULL, closed_at timestamptz
);
CREATE UNIQUE INDEX one_open_incident ON breakfix.incidents (cluster, scope)
    WHERE closed_at IS NULL;

CREATE TABLE breakfix.node_states (
    cluster text, node text, state text NOT NULL, since timestamptz NOT NULL,
    PRIMARY KEY (cluster, node)
);

CREATE TABLE breakfix.reviews (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL, node text NOT NULL, topic text NOT NULL,
    at timestamptz NOT NULL, reason text NOT NULL, detail text NOT NULL,
    last_seen timestamptz NOT NULL, closed_at timestamptz
);
CREATE UNIQUE INDEX one_open_review ON breakfix.reviews (cluster, node, topic)
    WHERE closed_at IS NULL;

CREATE TABLE breakfix.plans (
    cluster text, hash text, body text NOT NULL, first_seen timestamptz NOT NULL,
    PRIMARY KEY (cluster, hash)
);

CREATE TABLE breakfix.sweeps (
    cluster text, id text, at timestamptz NOT NULL, actor text NOT NULL,
    policy_version text NOT NULL, policy_hash text NOT NULL, plan_hash text NOT NULL,
    nodes integer NOT NULL,
    PRIMARY KEY (cluster, id)
);
CREATE INDEX sweeps_by_age ON breakfix.sweeps (cluster, at);
"""

# The chain finds tampering; this stops the accidental kind (and says so) before it happens.
APPEND_ONLY = """
CREATE FUNCTION breakfix.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON breakfix.audit
    FOR EACH ROW EXECUTE FUNCTION breakfix.audit_is_append_only();
CREATE TRIGGER append_only_all BEFORE TRUNCATE ON breakfix.audit
    FOR EACH STATEMENT EXECUTE FUNCTION breakfix.audit_is_append_only();
"""


def upgrade() -> None:
    """Make everything; the ledger's id is born here and never changes."""
    op.execute(TABLES)
    op.execute(APPEND_ONLY)


def downgrade() -> None:
    """There is no way back: records are not thrown away by a tool."""
    msg = "the ledger's first migration is not undone: it would delete the record of everything"
    raise NotImplementedError(msg)
