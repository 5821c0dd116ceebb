"""Two plain automations to compare with, run on the same traces through the same Prometheus.

`thresholds`: every signal that is beyond its threshold acts at once when its class has a disruptive
action: no second source, no common cause, no boot grace, no word about telemetry or owners.
`fatal_events`: any XID that the vendor calls fatal, any DCGM health watch that fails, or a node
that is not Ready acts. It reads raw metrics, as an alert rule would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from breakfix.decide.findings import findings_by_node
from breakfix.model import DISRUPTIVE, FailureClass, Observation
from breakfix.observe.labels import Missed, NodeNames
from breakfix.observe.promql import fill
from breakfix.policy import Policy
from breakfix.ports import Metrics, QueryResult

THRESHOLDS, FATAL_EVENTS = "thresholds", "fatal_events"

#: NVIDIA Xid catalogue: the immediate action is RESET_GPU or RESTART_BM; and those beside them that
#: the EKS node monitoring agent calls fatal or DCGM 4.6.0's health module fails.
FATAL_XIDS = frozenset(
    {46, 48, 54, 62, 63, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 142, 143, 151, 155, 156, 158}
)
_HEALTH_FAIL = 20
_WINDOW_S = 300.0
_QUERIES = {
    "err_code": "max by ($node, err_code) (DCGM_FI_DEV_XID_ERRORS) > 0",
    "xid": 'max by ($node, xid) (DCGM_EXP_XID_ERRORS_COUNT{xid!=""}) > 0',
    "health": f"max by ($node, health_error_code) (DCGM_EXP_GPU_HEALTH_STATUS) >= {_HEALTH_FAIL}",
}
_HEALTH_CLASSES = {
    "DCGM_FR_FALLEN_OFF_BUS": FailureClass.GPU_OFF_BUS,
    "DCGM_FR_VOLATILE_DBE_DETECTED": FailureClass.ECC_UNCORRECTABLE,
    "DCGM_FR_ROW_REMAP_FAILURE": FailureClass.ROW_REMAP_FAILED,
    "DCGM_FR_NVLINK_DOWN": FailureClass.NVLINK_DOWN,
}

Accused = Mapping[str, FailureClass]  # node that would be taken out -> why


def by_thresholds(observation: Observation, policy: Policy) -> Accused:
    """The nodes with any finding whose class has a disruptive action; the heaviest names it."""
    accused: dict[str, FailureClass] = {}
    judged = {n.name for n in observation.judged}
    for node, findings in findings_by_node(observation.readings, policy).items():
        for finding in findings:
            ladder = policy.class_rule(finding.failure_class).ladder
            if ladder[0] in DISRUPTIVE and node in judged:
                accused.setdefault(node, finding.failure_class)
    return accused


def by_fatal_events(
    metrics: Metrics, observation: Observation, policy: Policy, *, at: datetime
) -> Accused:
    """The nodes with any fatal event now. What cannot be read accuses nobody."""
    queries = {name: fill(q, policy.names, _WINDOW_S) for name, q in _QUERIES.items()}
    answers = metrics.query_many(queries, at=at)
    names = NodeNames(policy.names, frozenset(n.name for n in observation.nodes))
    accused: dict[str, FailureClass] = {}
    for label in ("err_code", "xid"):
        for node, code in _said(answers[label], names, label):
            if code.isdecimal() and int(code) in FATAL_XIDS:
                rule = policy.xids.get(int(code))
                accused.setdefault(node, rule.failure_class if rule else FailureClass.UNCLASSIFIED)
    for node, code in _said(answers["health"], names, "health_error_code"):
        accused.setdefault(node, _HEALTH_CLASSES.get(code, FailureClass.UNCLASSIFIED))
    for n in observation.judged:
        if not n.is_ready:
            accused.setdefault(n.name, FailureClass.NODE_NOT_READY)
    judged = {n.name for n in observation.judged}
    return {node: why for node, why in accused.items() if node in judged}


def _said(answer: QueryResult | str, names: NodeNames, label: str) -> Iterable[tuple[str, str]]:
    """(node, the label's value, or the sample's where the label is missing)."""
    if isinstance(answer, str):
        return
    for sample in answer.samples:
        node = names.node_of(sample.labels)
        if not isinstance(node, Missed):
            yield node, sample.labels.get(label) or f"{sample.value:.0f}"
