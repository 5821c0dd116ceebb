"""What happens when: faults, kills and troubles of one run, from a seed. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

QUIET_S = 150.0  # nothing is killed so long: how fast a node is taken out is measured in it
CALM_S = 120.0  # before the end nothing new is broken
KILL_EVERY_S = (12.0, 32.0)
BREAK_EVERY_S = (6.0, 16.0)
POOLS = ("train-h100", "infer-a100", "batch-l40s", "train-h200", "train-b200")

#: Faults that a repair of their class takes away, and those that leave hardware broken.
CURABLE = ("xid79", "xid95", "xid48", "gpu_missing")
INCURABLE = ("xid64",)
#: What must not take a node out: heat, and errors of applications.
MOST_INCURABLE = 2
LIES = ("hot", "app_xid13", "app_xid31")


class Target(StrEnum):
    """What is killed, or disturbed."""

    SCHEDULER = "scheduler"
    TRIGGERER = "triggerer"
    DAG_PROCESSOR = "dag-processor"
    API_SERVER = "api-server"
    TASK = "a task's process"
    PROMETHEUS = "Prometheus"
    KUBERNETES = "Kubernetes API (errors, dropped connections)"


@dataclass(frozen=True, slots=True)
class Break:
    """At `at_s`, `fault` on a node of `pool` that is whole then; `pick` chooses which."""

    at_s: float
    pool: str
    fault: str
    pick: float


@dataclass(frozen=True, slots=True)
class Kill:
    """At `at_s`, kill `target`; of the Kubernetes API, disturb it for `lasts_s`."""

    at_s: float
    target: Target
    lasts_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run, in order of time."""

    breaks: tuple[Break, ...]
    kills: tuple[Kill, ...]


def make_schedule(seed: int, *, lasts_s: float) -> Schedule:
    """The same for the same seed. The first faults meet no kill, the last seconds no fault."""
    rng = random.Random(seed)  # noqa: S311 - a plan that can be repeated, no secret
    return Schedule(tuple(_breaks(rng, lasts_s)), tuple(_kills(rng, lasts_s)))


def _breaks(rng: random.Random, lasts_s: float) -> list[Break]:
    # one in each pool at first, by the fault that shows at once: nothing waits for a limit
    made = [Break(5.0 + 15.0 * i * rng.random(), p, "xid79", rng.random())
            for i, p in enumerate(POOLS)]  # fmt: skip
    at = QUIET_S
    hard = 0
    while (at := at + rng.uniform(*BREAK_EVERY_S)) < lasts_s - CALM_S:
        kind = rng.choices(("curable", "lie", "incurable"), (7, 3, 1))[0]
        if kind == "incurable":
            hard += 1
        if (
            kind == "incurable" and hard <= MOST_INCURABLE
        ):  # each takes its pool's only slot for good
            fault = rng.choice(INCURABLE)
        else:
            fault = rng.choice(LIES if kind == "lie" else CURABLE)
        made.append(Break(at, rng.choice(POOLS), fault, rng.random()))
    return sorted(made, key=lambda b: b.at_s)


def _kills(rng: random.Random, lasts_s: float) -> list[Kill]:
    made: list[Kill] = []
    bag: list[Target] = []
    at = QUIET_S
    while (at := at + rng.uniform(*KILL_EVERY_S)) < lasts_s:
        if not bag:  # each has its turn
            bag = rng.sample(list(Target), len(Target))
        target = bag.pop()
        made.append(Kill(at, target, rng.uniform(4.0, 15.0)))
    return made
