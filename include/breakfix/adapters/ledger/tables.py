"""The tables, as SQLAlchemy Core sees them. They are made by the migrations, never from here.

Every key begins with the cluster's name. JSON is kept as canonical text: it comes back as it went
in, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
)

from breakfix.adapters.ledger.columns import Instant, Json, Scopes, Word, Words
from breakfix.cohorts import Advice
from breakfix.model import (
    Action,
    CaseEnd,
    Decision,
    FailureClass,
    HaltLevel,
    Label,
    NodeState,
    Purpose,
    StepStatus,
)
from breakfix.resilience.breaker import CircuitState

SCHEMA = "breakfix"


metadata = MetaData(schema=SCHEMA)


def _key(name: str, kind: Any = Words) -> Column[Any]:
    return Column(name, kind, primary_key=True)


def _must(name: str, kind: Any = Words) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _may(name: str, kind: Any = Words) -> Column[Any]:
    return Column(name, kind, nullable=True)


def _number() -> Column[Any]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


meta = Table("meta", metadata, _key("key"), _must("value", Text))

#: One row a scope that was ever asked for: what admission locks.
scopes = Table("scopes", metadata, _key("cluster"), _key("kind"), _key("value"))

cases = Table(
    "cases",
    metadata,
    _key("cluster"),
    _key("id"),
    _must("node"),
    _must("node_uid"),
    _must("fence", Integer),
    _must("state", Word(NodeState)),
    _must("failure_class", Word(FailureClass)),
    _must("action", Word(Action)),
    _must("confidence", Float(53)),
    _must("plan_hash"),
    _must("reason"),
    _must("opened_at", Instant),
    _must("updated_at", Instant),
    _must("boot_id"),
    _must("attempt", Integer),
    _must("scopes", Scopes),
    _must("requester"),
    _must("held_by"),
    _may("repaired_at", Instant),
    _may("deadline", Instant),
    _may("ended_at", Instant),
    _may("end", Word(CaseEnd)),
    _must("detail", Json),
    _must("state_since", Instant),
)

#: A slot of a scope that a case holds.
leases = Table(
    "leases",
    metadata,
    _key("cluster"),
    _key("kind"),
    _key("value"),
    _key("node"),
    _must("case_id"),
    _must("taken_at", Instant),
)

steps = Table(
    "steps",
    metadata,
    _key("cluster"),
    _key("case_id"),
    _key("name"),
    _must("fence", Integer),
    _must("attempt", Integer),
    _must("status", Word(StepStatus)),
    _must("started_at", Instant),
    _may("ended_at", Instant),
    _must("detail", Json),
)

approvals = Table(
    "approvals",
    metadata,
    _number(),
    _must("cluster"),
    _must("case_id"),
    _must("fence", Integer),
    _must("purpose", Word(Purpose)),
    _must("plan_hash"),
    _must("asked_at", Instant),
    _must("expires_at", Instant),
    _must("decision", Word(Decision)),
    _must("approver"),
    _must("channel"),
    _must("note"),
    _may("decided_at", Instant),
    _must("needed", Integer),
)

#: What was answered to a question; never changed. `role` is written by the database itself.
approval_answers = Table(
    "approval_answers",
    metadata,
    _number(),
    _must("cluster"),
    _must("case_id"),
    _must("approval_id", BigInteger),
    _must("purpose", Word(Purpose)),
    _must("asked_at", Instant),
    _must("approver"),
    _must("is_yes", Boolean),
    _must("channel"),
    _must("at", Instant),
    _must("plan_hash"),
    _must("note"),
    _must("objection"),
    _must("role", Text),
)

halts = Table(
    "halts",
    metadata,
    _key("cluster"),
    _must("level", Word(HaltLevel)),
    _must("actor"),
    _must("reason"),
    _must("at", Instant),
)

#: When a node last struck a scope: it was taken out, or fell ill (`is_sick` until it is well).
strikes = Table(
    "strikes",
    metadata,
    _key("cluster"),
    _key("kind"),
    _key("value"),
    _key("node"),
    _must("at", Instant),
    _must("is_sick", Boolean),
)

#: The breaker of a scope that ever opened; `opened_at` while it is open.
breakers = Table(
    "breakers",
    metadata,
    _key("cluster"),
    _key("kind"),
    _key("value"),
    _may("opened_at", Instant),
    _must("reason"),
    _may("counts_from", Instant),
    _must("reset_by"),
)

emergencies = Table(
    "emergencies",
    metadata,
    _number(),
    _must("cluster"),
    _must("lifts", Json),
    _must("lasts_s", Float(53)),
    _must("requester"),
    _must("approver"),
    _must("reason"),
    _must("asked_at", Instant),
    _must("answer_by", Instant),
    _may("approved_at", Instant),
    _may("until", Instant),
    _may("ended_at", Instant),
    _must("ended_by"),
)

#: The last entry of each cluster's chain: its row lock puts the appends in one order.
audit_heads = Table(
    "audit_heads", metadata, _key("cluster"), _must("seq", BigInteger), _must("hash", Text)
)

audit = Table(
    "audit",
    metadata,
    _key("cluster"),
    _key("seq", BigInteger),
    _must("at", Instant),
    _must("actor", Text),
    _must("event", Text),
    _must("subject", Text),
    _must("detail", Text),
    _must("previous_hash", Text),
    _must("hash", Text),
)

#: What was refused, by whom (`source`: sweep or admission); one row while it is refused.
refusals = Table(
    "refusals",
    metadata,
    _key("cluster"),
    _key("source"),
    _key("node"),
    _key("reason"),
    _key("failure_class"),
    _key("action"),
    _key("scope"),
    _must("text"),
    _must("first_seen", Instant),
    _must("last_seen", Instant),
)

incidents = Table(
    "incidents",
    metadata,
    _number(),
    _must("cluster"),
    _must("scope"),
    _must("nodes", Json),
    _must("failure_classes", Json),
    _must("reason"),
    _must("first_seen", Instant),
    _must("last_seen", Instant),
    _may("closed_at", Instant),
)

node_states = Table(
    "node_states",
    metadata,
    _key("cluster"),
    _key("node"),
    _must("state", Word(NodeState)),
    _must("since", Instant),
    Column("open_findings", Json, nullable=False, server_default="[]"),
)

reviews = Table(
    "reviews",
    metadata,
    _number(),
    _must("cluster"),
    _must("node"),
    _must("topic"),
    _must("at", Instant),
    _must("reason"),
    _must("detail", Json),
    _must("last_seen", Instant),
    _may("closed_at", Instant),
    _must("times_seen", BigInteger),
)

#: What people said of a review item or a case; never changed, the last one stands.
labellings = Table(
    "labellings",
    metadata,
    _number(),
    _must("cluster"),
    _may("review_id", BigInteger),
    _must("case_id"),
    _must("node"),
    _must("topic"),
    _must("marks", Json),
    _must("at", Instant),
    _must("actor"),
    _must("label", Word(Label)),
    _must("note"),
    _may("failure_class", Word(FailureClass)),
    _may("until", Instant),
)

learning_reports = Table(
    "learning_reports",
    metadata,
    _key("cluster"),
    _key("day"),
    _must("at", Instant),
    _must("body", Json),
)

change_advices = Table(
    "change_advices",
    metadata,
    _number(),
    _must("cluster"),
    _must("scope"),
    _must("advice", Word(Advice)),
    _must("reason"),
    _must("nodes", Json),
    _must("detail", Json),
    _must("first_seen", Instant),
    _must("last_seen", Instant),
    _may("closed_at", Instant),
)

#: When the next place of a shared rate is free.
rates = Table("rates", metadata, _key("cluster"), _key("target"), _must("free_at", Instant))

#: What processes tell one another of a dependency that failed; no row: it never did.
circuits = Table(
    "circuits",
    metadata,
    _key("cluster"),
    _key("name"),
    _must("state", Word(CircuitState)),
    _must("failures", Integer),
    _may("until", Instant),
    _may("failed_at", Instant),
    _must("error"),
    _must("version", BigInteger),
)

plans = Table(
    "plans",
    metadata,
    _key("cluster"),
    _key("hash"),
    _must("body", Json),
    _must("first_seen", Instant),
)

sweeps = Table(
    "sweeps",
    metadata,
    _key("cluster"),
    _key("id"),
    _must("at", Instant),
    _must("actor"),
    _must("policy_version"),
    _must("policy_hash"),
    _must("plan_hash"),
    _must("nodes", Integer),
)


def fields(row: Mapping[Any, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The columns that a dataclass of the model has, for its constructor."""
    return {name: row[name] for name in wanted}
