"""After the repair: is it a good node? In order: another boot where one was asked for, Ready, all
GPUs there, the operator's own validation, load on the GPUs (`load_checks`), and at last the
signals: what the load brought to light is seen there too.

Every check fails closed: what cannot be read or proved is not passed.
"""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta

from breakfix.act import repair
from breakfix.errors import MetricsError, Refused, SourceError
from breakfix.flow.assessment import assess
from breakfix.flow.gates import (
    failed,
    gpus_due,
    last_repair,
    open_gate,
    passed,
    skipped,
)
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.load_checks import load_ended_at
from breakfix.flow.proof import required_signals
from breakfix.flow.providers import pod_settings
from breakfix.flow.service_levels import compare_counters
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import BOOTS, Case, Node, Outcome, Pod, RefusalReason, Step, StepStatus
from breakfix.observe.expected import is_partitioned
from breakfix.observe.one_node import least_of
from breakfix.verify import (
    Remedy,
    boot_outcome,
    gpus_outcome,
    operator_outcome,
    remedy_of,
    signals_outcome,
)

_POLL_S = 10.0

log = logging.getLogger(__name__)


# --------------------------------------------------------------------------- Ready, GPUs


def check_gpus(services: Services, case: Case) -> Go | Wait:
    """Another boot if one was asked for, Ready, and as many GPUs allocatable as the SKU has; the
    device plugin is restarted once for that.

    A device that the plugin has called unhealthy stays so until the plugin restarts (device plugin
    up to v0.20).
    """
    node, step = open_gate(services, case, "check_gpus")
    booted = boot_outcome(node, _boot_to_end(services, case))
    expected = gpus_due(services, case, node)
    outcome = gpus_outcome(node, expected) if booted is Outcome.FIXED else booted
    text = said_of_gpus(node, expected)
    if booted is not Outcome.FIXED:
        text = "the node runs the boot that its repair was to end"
    evidence = {"after": _node_evidence(node, expected)}
    if outcome is Outcome.FIXED:
        _settle_plugin(services, case)
        return passed(services, case, step, text, to=Stage.CHECK_OPERATOR, evidence=evidence)
    deadline = step.started_at + timedelta(seconds=services.policy.timing.gpus_back_s)
    if services.clock.now() >= deadline:
        _settle_plugin(services, case)
        remedy = Remedy.NEXT_RUNG if not node.is_ready else remedy_of(outcome)
        if is_partitioned(node):
            text, remedy = f"{text}; its GPUs are in MIG mode", Remedy.PERSON
        return failed(services, case, step, outcome, text, remedy=remedy, evidence=evidence)
    if node.is_ready:
        _restart_plugin(services, case)
    return Wait(WaitKind.GPUS_BACK, case.id, case.node, deadline, gpus=expected)


def said_of_gpus(node: Node, expected: int) -> str:
    """What the node offers, in words."""
    known = f"{expected}" if expected else "an unknown number of"
    short = "" if node.gpus_capacity == node.gpus_allocatable else f", {node.gpus_capacity} in all"
    unready = "" if node.is_ready else ", the node is not Ready"
    return f"{node.gpus_allocatable} of {known} GPUs allocatable{short}{unready}"


def _node_evidence(node: Node, expected: int) -> dict[str, object]:
    return {
        "boot_id": node.boot_id,
        "is_ready": node.is_ready,
        "gpus_allocatable": node.gpus_allocatable,
        "gpus_capacity": node.gpus_capacity,
        "gpus_expected": expected,
    }


def _boot_to_end(services: Services, case: Case) -> str:
    """The boot that the last repair says it ended; "" where it was no reboot, or says no such thing
    (a person may have mended the node since).
    """
    step = last_repair(services, case)
    if step is None or step.status is not StepStatus.DONE:
        return ""
    if not any(f"-{action}-" in step.name for action in BOOTS):
        return ""
    return str(step.detail.get("boot_id", case.boot_id))


def _restart_plugin(services: Services, case: Case) -> None:
    """Once a fence. While the node has no plugin pod, its DaemonSet is about to bring one."""
    try:
        repair.restart_device_plugin(
            acting(services),
            case,
            RECOVERY,
            pod_settings(services.settings),
            nth=_nth_restart(case),
        )
    except Refused as e:
        if e.reason is not RefusalReason.REASON_GONE:
            raise
        log.info("case=%s node=%s no plugin to restart: %s", case.id, case.node, e)


def _settle_plugin(services: Services, case: Case) -> None:
    settings, nth = pod_settings(services.settings), _nth_restart(case)
    repair.settle_device_plugin(acting(services), case, settings, nth=nth)


def _nth_restart(case: Case) -> int:
    """Of the restarts of a round; the repair of that name, if there was one, is the first."""
    return case.fence + 1


# --------------------------------------------------------------------------- the GPU operator


def check_operator(services: Services, case: Case) -> Go | Wait:
    """The GPU operator's own validation of the node, where the cluster has it. Reads only."""
    node, step = open_gate(services, case, "check_operator")
    rules = services.policy.validation.operator
    absent = why_no_operator(services, node)
    if absent:
        return skipped(services, case, step, absent, Stage.RUN_DIAG)
    outcome, text = look_at_operator(services, node, _rebooted_at(services, case))
    if outcome is Outcome.FIXED:
        return passed(
            services,
            case,
            step,
            text,
            to=Stage.RUN_DIAG,
            evidence={"boot_id": node.boot_id},
        )
    now = services.clock.now()
    deadline = step.started_at + timedelta(seconds=rules.deadline_s)
    if now >= deadline:
        return failed(services, case, step, outcome, text, remedy=Remedy.PERSON)
    return _look_again(case, now, deadline)


def why_no_operator(services: Services, node: Node) -> str:
    """Why the operator's validation is not asked for; "" when it is."""
    rules = services.policy.validation.operator
    if rules.mode == "off":
        return "policy does not want the operator's validation"
    if node.labels.get(rules.deploy_label) == "false":
        return f"label {rules.deploy_label}=false keeps the operator's validator off this node"
    is_there = any(name == rules.app for _, name in services.cluster.daemon_sets())
    if rules.mode == "auto" and not is_there:
        return f"the cluster has no DaemonSet {rules.app}"
    return ""


def look_at_operator(services: Services, node: Node, since: datetime | None) -> tuple[Outcome, str]:
    """What the operator's pod on the node and its metrics say. `since`: of a reboot."""
    app = services.policy.validation.operator.app
    pods = [p for p in services.cluster.pods(node.name) if _is_validator(p, app)]
    try:
        is_ready = _operator_metrics(services, node)
    except MetricsError as e:
        return Outcome.CANNOT_TELL, f"the operator's metrics cannot be read: {e}"
    return operator_outcome(pods, since=since, is_ready=is_ready)


def _is_validator(pod: Pod, app: str) -> bool:
    owner = pod.controller
    is_kept = owner is not None and owner.kind == "DaemonSet"
    return pod.labels.get("app") == app and is_kept and not pod.is_terminating


def _operator_metrics(services: Services, node: Node) -> bool | None:
    """None where the operator reports nothing: its exporter is optional."""
    query = services.policy.validation.operator.query
    if not query:
        return None
    now = services.clock.now()
    least = least_of(services.metrics, services.policy, node.name, query, at=now)
    return None if math.isnan(least) else least >= 1


def _rebooted_at(services: Services, case: Case) -> datetime | None:
    step = last_repair(services, case)
    return step.started_at if step is not None and _boot_to_end(services, case) else None


# --------------------------------------------------------------------------- signals


def check_signals(services: Services, case: Case) -> Go | Wait | None:
    """No finding since the repair, for as long as policy says, the telemetry that could tell is
    there, and no counter that nothing clears has grown. None when it is passed.
    """
    node, step = open_gate(services, case, "check_signals")
    timing, now = services.policy.timing, services.clock.now()
    deadline = step.started_at + timedelta(seconds=timing.signals_s)
    clear_at = _clear_at(services, case, step)
    if now < clear_at:
        return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=clear_at)
    outcome, text, evidence = _service_levels(services, case)
    evidence["boot_id"] = node.boot_id
    if outcome is Outcome.FIXED:
        passed(services, case, step, text, to=Stage.APPROVE_RETURN, evidence=evidence)
        return None
    if now >= deadline or evidence.get("is_final"):
        remedy = remedy_of(outcome)
        return failed(services, case, step, outcome, text, remedy=remedy, evidence=evidence)
    return _look_again(case, now, deadline)


def _clear_at(services: Services, case: Case, step: Step) -> datetime:
    """Signals must stay clear after the repair, and after the load that came last."""
    since = max(
        case.repaired_at or step.started_at, load_ended_at(services, case) or step.started_at
    )
    return since + timedelta(seconds=services.policy.timing.clear_s)


def _service_levels(services: Services, case: Case) -> tuple[Outcome, str, dict[str, object]]:
    verdict = assess(services).judgement.verdict(case.node)
    outcome = signals_outcome(verdict, required=required_signals(services))
    text = f"{outcome}: {verdict.reason if verdict else 'the node was not judged'}"
    if outcome is not Outcome.FIXED:
        return outcome, text, {}
    try:
        told, said, evidence = compare_counters(services, case)
    except SourceError as e:
        return Outcome.CANNOT_TELL, f"counters cannot be compared: {e}", {}
    # a counter that has grown does not shrink: there is nothing to wait for
    evidence["is_final"] = told is Outcome.NOT_FIXED
    return told, f"{text}; {said}", evidence


def _look_again(case: Case, now: datetime, deadline: datetime) -> Wait:
    again = now + timedelta(seconds=_POLL_S)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=again)
