"""Decide: an observation, the policy and what the ledger remembers become
a verdict per node. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.decide.common_cause import veto_common_causes
from breakfix.decide.findings import findings_by_node
from breakfix.decide.telemetry import blindness_by_node
from breakfix.decide.verdicts import Subject, judge_node
from breakfix.model import Judgement, NodeRecord, Observation
from breakfix.policy import Policy


def judge(
    observation: Observation,
    policy: Policy,
    records: Mapping[str, NodeRecord],
    now: datetime,
) -> Judgement:
    """All verdicts, in the order of the nodes' names, and the incidents that span several nodes."""
    gpus = {n.name: n.gpus_capacity for n in observation.judged}
    findings = findings_by_node(observation.readings, policy, gpus)
    blindness = blindness_by_node(observation, policy)
    verdicts = []
    for node in sorted(observation.judged, key=lambda n: n.name):
        subject = Subject(
            node=node,
            findings=findings.get(node.name, ()),
            blindness=blindness[node.name],
            facts=observation.facts.get(node.name, {}),
            record=records.get(node.name),
        )
        verdicts.append(judge_node(subject, observation, policy, now))
    settled, incidents = veto_common_causes(verdicts, observation, policy, records, now)
    return Judgement(observation.at, policy.version, policy.hash, settled, incidents)
