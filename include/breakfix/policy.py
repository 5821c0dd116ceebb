"""The rules as data: signals, failure classes, limits, timings. One YAML, validated and hashed.

The default ships as `policy.yaml`; a site writes an overlay with only what differs, and never
edits the default. Parsing is pure: text in, frozen Policy out. Whoever reads the file is `wiring`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from breakfix.durations import Seconds as Seconds  # noqa: PLC0414 - part of this module's words
from breakfix.durations import parse_duration as parse_duration  # noqa: PLC0414
from breakfix.errors import SettingsError
from breakfix.model import (
    DISRUPTIVE,
    RUNGS,
    Action,
    FailureClass,
    ScopeKind,
    SignalKind,
    SignalMode,
    digest,
)
from breakfix.policy_approvals import Approvals as Approvals  # noqa: PLC0414 - of its words
from breakfix.policy_canary import CanaryRules
from breakfix.policy_drain import Drain as Drain  # noqa: PLC0414 - part of this module's words
from breakfix.policy_limits import Limits as Limits  # noqa: PLC0414
from breakfix.policy_limits import Maintenance as Maintenance  # noqa: PLC0414
from breakfix.policy_limits import PodMatch as PodMatch  # noqa: PLC0414
from breakfix.policy_limits import Share as Share  # noqa: PLC0414
from breakfix.policy_recovery import Mirror, Recovery
from breakfix.policy_rule import Rule, check_words
from breakfix.policy_text import WrongText, load_yaml, signal_faults
from breakfix.policy_text import merge_overlay as merge_overlay  # noqa: PLC0414
from breakfix.policy_validation import ValidationRules

KUBERNETES = "kubernetes:"
_KUBERNETES_QUERY = re.compile(
    r"^kubernetes:(gpus_short|gpus_unlike_peers|condition:[A-Za-z0-9./_|-]+!?=[A-Za-z]+"
    r"|event:[A-Za-z0-9_|]+|pods_(evicted|failing_fast|crash_looping|stuck)"
    r"|daemon_pods_down:[a-z0-9|-]+)$"
)
_WORDS = frozenset(
    {
        *("$window", "$window_s", "$step", "$node", "$host", "$gpu", "$gpus", "$seen"),
        *("$nodename", "$kubelet", "$podnode", "$ksm", "$ksm_seen", "$changed"),
    }
)
_TEXT_FIELDS = ("value", "threshold", "key", "gpu", "node", "meaning")


class Names(Rule):
    """Which labels of a series name its node and its GPU, in the order they are believed."""

    node: tuple[str, ...] = Field(
        ("node", "Hostname", "hostname", "nodename", "kubernetes_node", "instance"), min_length=1
    )
    gpu: tuple[str, ...] = Field(("UUID", "uuid", "gpu_uuid", "gpu"), min_length=1)


class FactRule(Rule):
    """A property of nodes read from metrics: a label's value, or without one the sample's."""

    query: str = Field(min_length=1)
    label: str = ""

    @field_validator("query")
    @classmethod
    def _words_are_known(cls, value: str) -> str:
        return check_words(value, _WORDS)


class PeerRule(Rule):
    """How far from its peers a value must be. The spread is robust: median and MAD.

    `threshold` and `op` of the signal compare the ratio of the value to the peers' median; beside
    it the distance must be `z` robust standard deviations (1.4826 MAD), so that neither a wide
    spread nor a small difference in a narrow one speaks.
    """

    by: tuple[Literal["sku", "pool", "rack", "fabric"], ...] = Field(("sku", "pool"), min_length=1)
    z: float = Field(5.0, gt=0, description="Robust standard deviations from the median")
    min_nodes: int = Field(4, ge=3, description="Fewer nodes that report it are no crowd of peers")
    floor: float = Field(
        0.0,
        ge=0.0,
        description="In the metric's unit: a median below it counts as this much for an excess,"
        " and as nothing to compare with for a shortfall",
    )


class SignalRule(Rule):
    """One signal. `query` is PromQL, in which these words are replaced.

    - `$window`: the window, as a PromQL duration; `$window_s`: the same as a number of seconds;
    - `$step`: a twentieth of the window, between 5 s and a minute, for subqueries;
    - `$node`, `$gpu`: the labels of `names`, for `by (...)` and `on (...)`;
    - `$seen(M)`: of a plain selector M, per node, the age in seconds of the oldest fresh sample;
      a large fleet asks two GPUs of each node first (`$gpus` in another selector of `coverage`
      or in a fact's: the same two), and all of nodes only where that leaves one unseen;
    - `$nodename`, `$kubelet`: behind an expression of node exporter's or the kubelet's series,
      adds the node's name by the scrape target; a target that has no name, or two, is known by
      its own labels;
    - `$ksm(M)`: a selector of kube-state-metrics; what the scrape moved to `exported_node`,
      `exported_namespace` and `exported_pod` is back in its place; `$ksm_seen(M)` is its coverage;
    - `$podnode`: behind an expression by namespace and pod, adds the node and the workload;
    - `$changed(M, L)`: of a selector M, the values of label L that nodes did not have some time ago
      (`$host`: the labels of `names` that do not change with the target).

    The answer's labels name the node (and GPU, and for `key_label` the key). Series whose value is
    beyond `threshold` speak; the comparison is added to the query, so that healthy series never
    travel. `coverage` is PromQL whose series name the nodes that report the signal at all, their
    value the age of the sample (`$seen(...)` gives both): what is absent there is unknown.

    A query `kubernetes:NAME` asks the API server's objects instead and needs no coverage:
    - `kubernetes:condition:TYPE=STATUS` or `TYPE!=STATUS`: for how many seconds the node's
      condition is so; of several, `TYPE|TYPE=STATUS`, each is a key;
    - `kubernetes:event:REASON|REASON`: how often an event of the node said so within the window;
    - `kubernetes:pods_failing_fast`, `pods_crash_looping`, `pods_stuck`: how many workloads have
      such pods here and live elsewhere; `pods_evicted`: how many pods, within the window;
    - `kubernetes:daemon_pods_down:PATTERN`: for how many seconds a matching DaemonSet's pod here
      has not been ready, beyond the window, while most of the others are;
    - `kubernetes:gpus_short`: how many GPUs fewer are allocatable than the node should have;
    - `kubernetes:gpus_unlike_peers`: how many GPUs fewer the node itself shows than most nodes of
      its SKU, pool and instance type.

    `hold`, `also_window`, `clear_threshold` and `clear_window` are written into the query too: what
    is judged at an instant depends on that instant's metrics alone, and a past one gives the same
    answer again. With `peers` every value travels, and the comparison is made here.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    query: str = Field(min_length=1)
    coverage: str = ""
    since_query: str = Field(
        "", description="As `query`, counting only what came within $window; empty: `query` does so"
    )
    window_s: Seconds = Field(300.0, alias="window")
    op: Literal[">", ">=", "<", "==", "!="] = ">"
    threshold: float = 0.0
    per: Literal["gpu", "node"] = "gpu"
    key_label: str = ""
    weight: float = Field(ge=0.0, le=1.0)
    group: str = Field(min_length=1)
    mode: SignalMode
    kind: SignalKind
    failure_class: FailureClass
    text: str = Field(
        min_length=1,
        description="One sentence; {value} {threshold} {key} {gpu} {node}, {meaning} of an XID",
    )
    source: str = Field(min_length=1)
    is_required: bool = Field(default=False, description="Not reporting it is lost telemetry")
    is_xid: bool = Field(default=False, description="The key is an XID: `xids` says what it means")
    expects: Literal["", "gpus"] = Field(
        "", description="gpus: the value becomes how many are missing of those the node should have"
    )
    start_at: Action | None = Field(None, description="The rung of the ladder it begins at")
    absence_weight: float = Field(
        0.0, ge=0.0, le=1.0, description="How much its absence backs a node that is NotReady"
    )
    input: Literal["gpu", "node", "workload", "scheduler", "change"] = "gpu"
    hold_s: Seconds = Field(
        0.0,
        alias="hold",
        description="It must also have been so that long ago, and each minute since",
    )
    also_window_s: Seconds = Field(
        0.0, alias="also_window", description="A second window over which it must be so as well"
    )
    clear_threshold: float | None = Field(
        None, description="Once it spoke, it speaks until the value is no longer beyond this one"
    )
    clear_window_s: Seconds = Field(
        600.0, alias="clear_window", description="How long after it spoke clear_threshold counts"
    )
    alone_up_to: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Of the node's GPUs, the largest share on which it may act alone; on more of"
        " them one cause above the GPUs is likelier, and a second source is wanted",
    )
    peers: PeerRule | None = Field(
        None, description="The value becomes its ratio to the median of its peers"
    )
    explained_by: tuple[str, ...] = Field(
        (), description="Signals whose class it takes when one of them speaks of the same GPU"
    )

    @property
    def is_kubernetes(self) -> bool:
        """Read from the API server's objects, not from Prometheus."""
        return self.query.startswith(KUBERNETES)

    @property
    def is_of_node(self) -> bool:
        """Told of a node or its GPUs, whose silence is a loss: a workload that is gone is none."""
        return self.input in {"gpu", "node"}

    @field_validator("query", "coverage", "since_query")
    @classmethod
    def _words_are_known(cls, value: str) -> str:
        return check_words(value, _WORDS)

    @field_validator("text")
    @classmethod
    def _text_can_be_said(cls, value: str) -> str:
        try:
            value.format(**dict.fromkeys(_TEXT_FIELDS, ""))
        except (LookupError, ValueError, AttributeError) as e:
            msg = f"{e} cannot be filled in; a text may have {', '.join(_TEXT_FIELDS)} in braces"
            raise ValueError(msg) from None
        return value

    @model_validator(mode="after")
    def _says_who_reports(self) -> SignalRule:
        if self.is_kubernetes:
            if not _KUBERNETES_QUERY.match(self.query):
                msg = (
                    f"{self.query!r} is none of kubernetes:condition:TYPE=STATUS, event:REASON,"
                    " gpus_short, gpus_unlike_peers, pods_evicted, pods_failing_fast,"
                    " pods_crash_looping, pods_stuck and daemon_pods_down:PATTERN"
                )
                raise ValueError(msg)
        elif not self.coverage:
            msg = f"signal {self.name} needs `coverage`: without it absence would look healthy"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> SignalRule:
        timed = self.hold_s or self.also_window_s or self.clear_threshold is not None
        if timed and (self.is_kubernetes or self.peers):
            what = "Kubernetes' objects" if self.is_kubernetes else "peers"
            msg = f"hold, also_window and clear_threshold do not go with {what}: use the query"
            raise ValueError(msg)
        if self.peers and (self.is_kubernetes or self.expects or self.op in {"==", "!="}):
            msg = "peers needs a query of Prometheus, no `expects`, and one of >, >= and < as op"
            raise ValueError(msg)
        if self.clear_threshold is not None and not self._clears_later(self.clear_threshold):
            msg = f"clear_threshold must be on the healthy side of threshold {self.threshold:g}"
            raise ValueError(msg)
        return self

    def _clears_later(self, clear: float) -> bool:
        if self.op in {">", ">="}:
            return clear < self.threshold
        return self.op == "<" and clear > self.threshold


class XidRule(Rule):
    """What one XID means when an `xid` signal reports it."""

    failure_class: FailureClass
    mode: SignalMode
    weight: float = Field(ge=0.0, le=1.0)
    source: str = Field(min_length=1)
    follows: tuple[int, ...] = ()  # a consequence of these when they are there
    text: str = ""  # what the driver means by it


class ClassRule(Rule):
    """What may be done about one failure class."""

    mode: Literal["off", "recommend", "approve", "auto"] = "recommend"
    ladder: tuple[Action, ...] = Field(min_length=1)  # attempt 1, 2, ...; past its end: hold
    min_confidence: float = Field(0.9, ge=0.0, le=1.0)
    diag_level: int = Field(2, ge=1, le=4)
    is_change_sensitive: bool = Field(
        default=False,
        description="A bad change looks like it: after a fresh one it is not proven by itself",
    )
    is_like_planned_work: bool = Field(
        default=False,
        description="Planned work on a node looks like it: not counted while somebody else holds"
        " the node cordoned",
    )
    source: str = ""

    @model_validator(mode="after")
    def _goes_up(self) -> ClassRule:
        steps = list(itertools.pairwise(self.ladder))
        for before, after in steps:
            if before not in RUNGS or after not in RUNGS:
                msg = f"ladder: {before} and {after} are no rungs of one ladder"
                raise ValueError(msg)
            if RUNGS.index(after) < RUNGS.index(before):
                msg = f"ladder: {after} comes after {before}, which does more; a ladder goes up"
                raise ValueError(msg)
        return self

    def action_for(self, attempt: int, repairs: Mapping[Action, int] | None = None) -> Action:
        """The rung for that attempt (1-based), above all that was tried (`repairs`: how often).

        Beyond a ladder of repairs only hardware is left.
        """
        index = max(attempt - 1, self._tried(repairs or {}))
        if index < len(self.ladder):
            return self.ladder[index]
        return self.hardware(repairs or {}) if self.ladder[-1] in DISRUPTIVE else self.ladder[-1]

    def hardware(self, repairs: Mapping[Action, int]) -> Action:
        """What is left when no repair is: the vendor, where the ladder names it, and was not
        called yet.
        """
        is_vendor = Action.OPEN_VENDOR_CASE in self.ladder
        is_called = bool(repairs.get(Action.OPEN_VENDOR_CASE))
        return Action.OPEN_VENDOR_CASE if is_vendor and not is_called else Action.HOLD_FOR_HARDWARE

    def _tried(self, repairs: Mapping[Action, int]) -> int:
        """How many rungs of the ladder lie behind: those below the highest that was tried, and it
        as often as it was.
        """
        highest = max((RUNGS.index(a) for a, times in repairs.items() if times), default=-1)
        behind = 0
        for index, action in enumerate(self.ladder):
            if action not in RUNGS:
                continue
            here = self.ladder[: index + 1].count(action)
            height = RUNGS.index(action)
            if height < highest or (height == highest and here <= repairs.get(action, 0)):
                behind = index + 1
        return behind


class CommonCause(Rule):
    """When many nodes of one scope speak together it is one incident, not many faults."""

    min_nodes: int = Field(3, ge=2)
    min_share: float = Field(0.3, gt=0, le=1.0)
    min_share_changed: float = Field(
        0.1, gt=0, le=1.0, description="Instead of min_share, of the nodes of one fresh change"
    )
    surge_nodes: int = Field(10, ge=2, description="So many of one kind in a pool, SKU or fleet")
    surge_share: float = Field(0.05, gt=0, le=1.0, description="are one, from this share on")
    confidence: float = Field(
        0.95, ge=0.0, le=1.0, description="What a class is worth that a whole crowd shows"
    )
    window_s: Seconds = Field(1800.0, alias="window")
    scopes: tuple[ScopeKind, ...] = (
        ScopeKind.RACK,
        ScopeKind.POOL,
        ScopeKind.SKU,
        ScopeKind.FABRIC,
        ScopeKind.FLEET,
    )
    facts: tuple[str, ...] = ("driver_version", "kernel_version")
    changes: tuple[str, ...] = Field((), description="Facts that only a freshly changed node has")
    part_classes: tuple[FailureClass, ...] = Field(
        (), description="Faults of one part, which no shared place brings about"
    )


class Timing(Rule):
    """Deadlines of a case. Each has a next step; none is endless."""

    approval_repair_s: Seconds = Field(14400.0, alias="approval_repair")
    approval_return_s: Seconds = Field(14400.0, alias="approval_return")
    reboot_s: Seconds = Field(2700.0, alias="reboot")
    power_cycle_s: Seconds = Field(2700.0, alias="power_cycle")
    replace_s: Seconds = Field(21600.0, alias="replace")
    repair_pod_s: Seconds = Field(900.0, alias="repair_pod")
    gpus_back_s: Seconds = Field(900.0, alias="gpus_back")
    clear_s: Seconds = Field(120.0, alias="clear", description="Signals must stay clear so long")
    signals_s: Seconds = Field(1800.0, alias="signals", description="and must be so by then")
    diag_s: Seconds = Field(2700.0, alias="diag")
    evidence_max_age_s: Seconds = Field(7200.0, alias="evidence_max_age")
    watch_s: Seconds = Field(86400.0, alias="watch")
    stale_sample_s: Seconds = Field(180.0, alias="stale_sample")
    boot_grace_s: Seconds = Field(600.0, alias="boot_grace")


class Bar(Rule):
    """How many labels, and what share of them right, something asks for."""

    labels: int = Field(ge=1)
    precision: float = Field(ge=0.0, le=1.0)


class Bars(Rule):
    """A bar for each mode that acts."""

    approve: Bar
    auto: Bar


class Lemon(Rule):
    """When a node is a repeat offender: points for what it did within `window`."""

    window_s: Seconds = Field(2592000.0, alias="window")
    per_case: float = Field(1.0, ge=0)
    per_failed_return: float = Field(2.0, ge=0)
    per_other_class: float = Field(1.0, ge=0)
    score: float = Field(5.0, gt=0, description="From so many points on it is a lemon")


class Learning(Rule):
    """What is made of people's answers. Proposals only: nothing of it is applied by itself."""

    noise_rest_s: Seconds = Field(259200.0, alias="noise_rest", gt=0)
    known_rest_s: Seconds = Field(604800.0, alias="known_rest", gt=0)
    longest_rest_s: Seconds = Field(7776000.0, alias="longest_rest", gt=0)
    level: float = Field(0.95, gt=0, lt=1, description="Of the exact intervals, two-sided")
    graduate: Bars = Field(
        Bars(approve=Bar(labels=20, precision=0.8), auto=Bar(labels=80, precision=0.95)),
        description="The low end of the interval must reach it",
    )
    demote: Bars = Field(
        Bars(approve=Bar(labels=5, precision=0.7), auto=Bar(labels=5, precision=0.9)),
        description="A share below it is too low",
    )
    reweigh_labels: int = Field(20, ge=1)
    calibration_bins: int = Field(10, ge=2, le=100)
    lemon: Lemon = Lemon()


class Policy(Rule):
    """The whole policy. `hash` is stored with every verdict, plan and case."""

    version: str = Field(min_length=1)
    signals: tuple[SignalRule, ...]
    xids: Mapping[int, XidRule]
    classes: Mapping[FailureClass, ClassRule]
    limits: Limits
    common_cause: CommonCause
    drain: Drain = Drain()
    timing: Timing = Timing()
    validation: ValidationRules = ValidationRules()
    approvals: Approvals = Approvals()
    recovery: Recovery = Recovery()
    mirror: Mirror = Mirror()
    canary: CanaryRules = CanaryRules()
    learning: Learning = Learning()
    expected_gpus: Mapping[str, int] = Field(default_factory=dict, description="By SKU label value")
    names: Names = Names()
    facts: Mapping[str, FactRule] = Field(default_factory=dict)
    app_xids: tuple[int, ...] = Field(
        (), description="XIDs of workloads: context, never a reason. Others not in `xids`: review"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Policy:
        names = [s.name for s in self.signals]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            msg = f"signals defined twice: {', '.join(twice)}"
            raise ValueError(msg)
        unknown = sorted({e for s in self.signals for e in s.explained_by} - set(names))
        if unknown:
            msg = f"explained_by names no signal: {', '.join(unknown)}"
            raise ValueError(msg)
        used = {s.failure_class for s in self.signals} | {
            x.failure_class for x in self.xids.values()
        }
        both = sorted(set(self.app_xids) & set(self.xids))
        if both:
            msg = f"XIDs both in xids and app_xids: {', '.join(map(str, both))}"
            raise ValueError(msg)
        missing = sorted(used - set(self.classes))
        if missing:
            msg = f"classes lacks {', '.join(missing)}, which signals or xids name"
            raise ValueError(msg)
        return self

    @property
    def required_signals(self) -> frozenset[str]:
        """Signals without which a node counts as unseen: unknown, they leave a repair unproven."""
        return frozenset(s.name for s in self.signals if s.is_required)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the effective policy, whatever its layout and comments."""
        return digest(self.model_dump(mode="json", by_alias=True))

    def class_rule(self, failure_class: FailureClass) -> ClassRule:
        """The rule of a class; one that the policy does not name is held for people."""
        return self.classes.get(failure_class, _HANDS_OFF)


_HANDS_OFF = ClassRule(mode="off", ladder=(Action.REVIEW,))


def parse_policy(default_text: str, overlay_text: str = "") -> Policy:
    """A Policy from the default's YAML and an overlay's. Raises SettingsError, a line per wrong
    value.
    """
    try:
        data = _load(default_text, "the default policy")
        if overlay_text.strip():
            data = merge_overlay(data, _load(overlay_text, "the policy overlay"))
        return Policy.model_validate(data)
    except ValidationError as e:
        lines = [
            f"{'.'.join(str(p) for p in err['loc']) or 'policy'}: "
            f"{err['msg'].removeprefix('Value error, ')}"
            for err in e.errors(include_url=False)
        ]
        raise SettingsError("policy: " + "; ".join(lines)) from None


def _load(text: str, what: str) -> dict[str, Any]:
    try:
        data = load_yaml(text)
    except WrongText as e:
        raise e.about(what) from None
    if data is None:  # nothing but comments
        return {}
    if not isinstance(data, dict):
        msg = f"{what} must be a map at its top level"
        raise SettingsError(msg)
    if faults := [f"{'.'.join(map(str, path))}: {why}" for path, why in signal_faults(data)]:
        raise SettingsError(f"{what}: " + "; ".join(faults))
    return data
