"""Which alerts of Prometheus fire, where policy names any that hold disruption: one query."""

from __future__ import annotations

from datetime import datetime

from breakfix.errors import MetricsError, SettingsError
from breakfix.model import FiringAlerts
from breakfix.policy import Policy
from breakfix.ports import Metrics

QUERY = 'ALERTS{alertstate="firing"}'


def read_alerts(metrics: Metrics, policy: Policy, *, at: datetime) -> FiringAlerts | None:
    """The alerts that fire; None where policy names none. An error, and an answer that is not
    whole, are in `error`: whoever asks whether an alert fires cannot be told then.
    """
    if not policy.limits.alerts.block:
        return None
    try:
        answer = metrics.query(QUERY, at=at)
    except (MetricsError, SettingsError) as e:
        return FiringAlerts(error=str(e))
    serious = [w for w in answer.warnings if not w.startswith("PromQL info:")]
    if serious:
        return FiringAlerts(error=f"partial answer: {serious[0]}")
    return FiringAlerts(tuple(dict(s.labels) for s in answer.samples))
