"""Labelling a review item or a case, on Postgres: locked, checked, added, audited."""

from __future__ import annotations

from sqlalchemy import Connection

from breakfix.adapters.ledger import cases, labellings, reviews
from breakfix.adapters.ledger.review_rules import Said, case_labelling, review_labelling
from breakfix.model import Labelling
from breakfix.ports import ReviewItem


def answer_review(connection: Connection, cluster: str, review_id: int, said: Said) -> ReviewItem:
    """The item with its new answer. Raises LedgerError."""
    item = reviews.load(connection, cluster, review_id, lock=True)
    labellings.add(connection, cluster, review_labelling(item, said))
    return reviews.load(connection, cluster, review_id)


def label_case(connection: Connection, cluster: str, case_id: str, said: Said) -> Labelling:
    """The case's new labelling; the case stays as it is. Raises LedgerError."""
    case = cases.load(connection, cluster, case_id, lock=True)
    return labellings.add(connection, cluster, case_labelling(case, said))
