"""Load on a repaired node: the diagnostic level by level, then the bandwidth of its links.

Each run is a pod of ours. One that could not run (another one did, it was killed, its status is
lost) proves nothing either way: it is tried again after a pause, a few times, and then a person
looks. One that ran and was not passed is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from breakfix.act import pods, steps
from breakfix.act.checks import Load, LoadKind, start_load
from breakfix.act.repair import pod_of
from breakfix.errors import NotFound
from breakfix.flow.gates import (
    REMEDY,
    after_failure,
    failed,
    gpus_due,
    open_gate,
    repairs_done,
    settle,
    skipped,
    step_name,
    step_of,
)
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.providers import pod_settings
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Case, Outcome, Step, StepStatus
from breakfix.observe.expected import is_partitioned
from breakfix.policy_validation import Floors
from breakfix.verify import (
    NVBANDWIDTH_TESTS,
    Bandwidth,
    DiagAdvice,
    Remedy,
    diag_outcome,
    nccl_outcome,
    nvbandwidth_outcome,
    remedy_of_diag,
)

_FIRST_LEVELS = (1, 2)  # seconds, then minutes: what is plainly broken is told soon
_AFTER_TRIAGE = 3  # a node that was rebooted for a triage error is looked at longer
_LONGEST = 4
_NO_DIAG = "diag_not_run"
_TRY_AGAIN = "may_retry"  # in a step's detail
BANDWIDTHS = (LoadKind.NCCL, LoadKind.NVBANDWIDTH)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one run proved."""

    outcome: Outcome
    text: str
    remedy: Remedy = Remedy.PERSON
    may_retry: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing to run: the word for its step, what to start, and how to read what it left."""

    what: str
    load: Load
    deadline_s: float
    judge: Callable[[str, int | None], _Judged]


# --------------------------------------------------------------------------- the diagnostic


def run_diag(services: Services, case: Case) -> Go | Wait:
    """DCGM's diagnostic from level 1 up to the class's, each as a pod that takes all GPUs."""
    node = services.cluster.node(case.node)
    if is_partitioned(node):
        _, step = open_gate(services, case, _NO_DIAG)
        text = "the GPUs are in MIG mode, in which the diagnostic does not run: a person must look"
        outcome = Outcome.CANNOT_TELL
        return failed(services, case, step, outcome, text, remedy=Remedy.PERSON)
    gpus = gpus_due(services, case, node)
    for level in diag_levels(services, case):
        not_yet = _run(services, case, _diag(services, case, level, gpus))
        if not_yet is not None:
            return not_yet
    return Go(Stage.RUN_BANDWIDTH, "the diagnostic passed")


def diag_levels(services: Services, case: Case) -> tuple[int, ...]:
    """Which levels this case needs, in order. One that was rebooted for an error of severity
    triage is looked at with level 3 at least, whatever its class asks for.
    """
    top = services.policy.class_rule(case.failure_class).diag_level
    asked = (s.detail.get(REMEDY) for s in services.book.steps(case.id) if is_diag(s))
    if Remedy.REBOOT_NODE in asked:
        top = max(top, _AFTER_TRIAGE)
    return tuple(sorted({*(x for x in _FIRST_LEVELS if x < top), top}))


def diag_word(level: int) -> str:
    """The word for the step of a level."""
    return f"{steps.DIAG}_r{level}"


def is_diag(step: Step) -> bool:
    """Whether it is a run of the diagnostic, of whatever level."""
    return step.name.startswith(f"{steps.DIAG}_r")


def _diag(services: Services, case: Case, level: int, gpus: int) -> _Check:
    tests = services.policy.validation.diag_tests.get(level, ())
    done = repairs_done(services, case)

    def judge(log: str, exit_code: int | None) -> _Judged:
        outcome, said = diag_outcome(log, exit_code, level=level, gpus=gpus, tests=tests)
        first = next(({"error_id": e.error_id, "entity": e.entity} for e in said.errors), {})
        return _Judged(
            outcome,
            said.text,
            remedy=remedy_of_diag(said.advice, done),
            may_retry=said.advice is DiagAdvice.RETRY,
            evidence={"advice": said.advice.value, **first},
        )

    wait_s = services.policy.timing.diag_s
    if level == _LONGEST:
        wait_s = max(wait_s, pods.DIAG_DEADLINE_S[level])
    load = Load(LoadKind.DIAG, gpus, level=level)
    return _Check(diag_word(level), load, wait_s, judge)


# --------------------------------------------------------------------------- bandwidths


def run_bandwidth(services: Services, case: Case) -> Go | Wait:
    """An all-reduce over all GPUs, and copies over each link, against the floors of the SKU."""
    node = services.cluster.node(case.node)
    gpus = gpus_due(services, case, node)
    for kind in BANDWIDTHS:
        why_not = why_no_bandwidth(services, node.sku, gpus, kind)
        if why_not:
            not_yet = _not_run(services, case, kind, why_not)
        else:
            floors = services.policy.validation.bandwidth.floors[node.sku]
            not_yet = _run(services, case, _bandwidth(services, case, kind, gpus, floors))
        if not_yet is not None:
            return not_yet
    return Go(Stage.CHECK_SIGNALS, "bandwidths are looked at")


def why_no_bandwidth(services: Services, sku: str, gpus: int, kind: LoadKind) -> str:
    """Why this node's bandwidth is not measured; "" when it is."""
    settings, floors = services.settings, services.policy.validation.bandwidth.floors.get(sku)
    image = settings.nccl_image if kind is LoadKind.NCCL else settings.nvbandwidth_image
    if not image:
        return f"BREAKFIX_{kind.upper()}_IMAGE names no image"
    if floors is None:
        return f"the policy has no floors for SKU {sku or '(none)'}"
    if floors.gpus != gpus:
        return f"the floors of {sku} are those of {floors.gpus} GPUs, the node has {gpus}"
    return ""


def _not_run(services: Services, case: Case, kind: LoadKind, why: str) -> Go | Wait | None:
    known = step_of(services, case, kind.value)
    if known is not None and known.status is StepStatus.DONE:
        return None
    _, step = open_gate(services, case, kind.value)
    if services.policy.validation.bandwidth.is_required:
        text, outcome = f"not run: {why}", Outcome.CANNOT_TELL
        return failed(services, case, step, outcome, text, remedy=Remedy.PERSON)
    skipped(services, case, step, why, Stage.CHECK_SIGNALS)
    return None


def _bandwidth(services: Services, case: Case, kind: LoadKind, gpus: int, floors: Floors) -> _Check:
    rules = services.policy.validation.bandwidth
    read = nccl_outcome if kind is LoadKind.NCCL else nvbandwidth_outcome
    slow = remedy_of_diag(DiagAdvice.REBOOT, repairs_done(services, case))

    def judge(log: str, exit_code: int | None) -> _Judged:
        outcome, said = read(log, exit_code, gpus=gpus, floors=floors)
        remedy = slow if outcome is Outcome.NOT_FIXED else Remedy.PERSON
        may_retry = outcome is Outcome.CANNOT_TELL
        return _Judged(outcome, said.text, remedy, may_retry, _measured(said))

    tests = tuple(NVBANDWIDTH_TESTS) if kind is LoadKind.NVBANDWIDTH else ()
    load = Load(kind, gpus, tests=tests, deadline_s=int(rules.deadline_s))
    return _Check(kind.value, load, rules.deadline_s + _START_S, judge)


#: In a step's detail: when what it proves was so.
PROVED_AT = "proved_at"
_START_S = 300.0  # for its image to arrive, beyond the time it may run (ours)


def _measured(said: Bandwidth) -> dict[str, Any]:
    kept: dict[str, Any] = {"measured": dict(said.measured)}
    if said.nccl_version:
        kept["nccl_version"] = said.nccl_version
    if said.has_nvls is not None:
        kept["has_nvls"] = said.has_nvls
    return kept


# --------------------------------------------------------------------------- one run, its tries


def _run(services: Services, case: Case, check: _Check, number: int = 1) -> Go | Wait | None:
    """None when it was passed; else what to wait for, or where the case goes. `number`: the try."""
    step = step_of(services, case, _try(check, number))
    if step is None:
        pause = _pause(services, case, step_of(services, case, _try(check, number - 1)))
        if pause is not None:
            return pause
        step = _start(services, case, check, number)
    if step.status is StepStatus.DISPATCHED:
        seen = _look(services, case, check, step)
        if isinstance(seen, Wait):
            return seen
        step = seen
    if step.status is StepStatus.VERIFIED:
        return None
    is_last = number >= services.policy.validation.tries
    if is_last or not step.detail.get(_TRY_AGAIN):
        return after_failure(step)
    return _run(services, case, check, number + 1)


def _try(check: _Check, number: int) -> str:
    return check.what if number <= 1 else f"{check.what}_try{number}"


def last_try(services: Services, case: Case, what: str) -> Step | None:
    """The newest run of that check at this fence."""
    numbers = range(services.policy.validation.tries, 1, -1)
    words = (*(f"{what}_try{n}" for n in numbers), what)
    return next((s for w in words if (s := step_of(services, case, w)) is not None), None)


def _pause(services: Services, case: Case, last: Step | None) -> Wait | None:
    """Between two tries, for whatever was in the way."""
    if last is None or last.ended_at is None:
        return None  # the first one, or the last one is not over
    again = last.ended_at + timedelta(seconds=services.policy.validation.retry_after_s)
    if services.clock.now() >= again:
        return None
    return Wait(WaitKind.TIME, case.id, case.node, again, not_before=again)


def _start(services: Services, case: Case, check: _Check, number: int) -> Step:
    name = step_name(services, case, _try(check, number))
    settings = pod_settings(services.settings)
    return start_load(acting(services), case, RECOVERY, settings, load=check.load, name=name)


def _look(services: Services, case: Case, check: _Check, step: Step) -> Step | Wait:
    namespace, pod_name = pod_of(step)
    deadline = step.started_at + timedelta(seconds=check.deadline_s)
    try:
        is_finished = services.cluster.pod(namespace, pod_name).is_finished
    except NotFound:  # cut short before its pod: the name is the same
        settings = pod_settings(services.settings)
        act, load = acting(services), check.load
        step = start_load(act, case, RECOVERY, settings, load=load, name=step.name)
        is_finished = False
    if is_finished:
        return _settle(services, case, check, step)
    if services.clock.now() >= deadline:
        text = f"{check.what} did not end in time"
        remedy = Remedy.PERSON
        return settle(services, case, step, Outcome.CANNOT_TELL, text, remedy=remedy)
    return Wait(WaitKind.POD_FINISHED, case.id, case.node, deadline, pod=f"{namespace}/{pod_name}")


def _settle(services: Services, case: Case, check: _Check, step: Step) -> Step:
    """Record what the run proved, and take its pod away: its result is in the ledger then."""
    namespace, name = pod_of(step)
    log = services.cluster.pod_log(namespace, name)
    exit_code = services.cluster.pod_exit_code(namespace, name)
    judged = check.judge(log, exit_code)
    boot_id = services.cluster.node(case.node).boot_id
    if boot_id != step.detail.get("boot_id", boot_id):
        text = f"the node rebooted during {check.what} ({judged.text})"
        judged = _Judged(Outcome.NOT_FIXED, text, Remedy.NEXT_RUNG)
    evidence = {**judged.evidence, "exit_code": exit_code, "boot_id": boot_id}
    evidence |= _proved_at(services, namespace, name)
    if judged.may_retry:
        evidence[_TRY_AGAIN] = True
    remedy = None if judged.outcome is Outcome.FIXED else judged.remedy
    settled = settle(
        services, case, step, judged.outcome, judged.text, remedy=remedy, evidence=evidence
    )
    pod = services.cluster.pod(namespace, name)
    services.cluster.delete_pod(namespace, name, pod.uid, grace_s=0)
    return settled


def _proved_at(services: Services, namespace: str, name: str) -> dict[str, Any]:
    """When the pod ended: nobody may have looked for a day, and its result is as old as that."""
    ended_at, now = services.cluster.pod(namespace, name).ended_at, services.clock.now()
    return {} if ended_at is None else {PROVED_AT: min(ended_at, now).isoformat()}


def load_ended_at(services: Services, case: Case) -> datetime | None:
    """When the last load of this fence ended; None when none did."""
    words = (*(diag_word(x) for x in diag_levels(services, case)), *BANDWIDTHS)
    found = (last_try(services, case, word) for word in words)
    return max((s.ended_at for s in found if s is not None and s.ended_at), default=None)
