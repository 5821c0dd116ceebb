"""The body of `learning_report`: a small dict in XCom, the rest is in the ledger."""

from __future__ import annotations

import logging
from typing import Any

from breakfix_airflow.services import services

log = logging.getLogger(__name__)


def learning_report() -> dict[str, Any]:
    """Make the day's report and keep it; what it counts and proposes. Raises LedgerError."""
    from breakfix.flow.learning import report_of_the_day, words_of

    report, is_new = report_of_the_day(services())
    subject, text = words_of(report)
    log.info("%s: %s", subject, text)
    return {
        "is_new": is_new,
        "episodes": report.episodes,
        "labelled": report.calibration.labelled,
        "false_quarantines": sum(c.false_quarantines for c in report.classes),
        "proposals": [f"{p.kind} {'.'.join(p.path)}: {p.after}" for p in report.proposals],
        "lemons": [o.node for o in report.offenders if o.is_lemon],
    }
