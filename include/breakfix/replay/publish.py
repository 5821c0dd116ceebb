"""The numbers for people and programs: tables, JSON, and the page docs/decisions.md. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from breakfix.policy import Policy
from breakfix.replay.floors import Floor
from breakfix.replay.outcome import Replayed
from breakfix.replay.score import NEVER_KINDS, Rate, Reliability, Score, Share, Wrong

MOST_WRONGS = 40  # of one sort on the page; the JSON has all
_WORDS = {
    "wrong_action": "Taken out, and should not have been",
    "missed": "Found too late, or never",
    "wrong_class": "Rightly taken out, for the wrong class",
    "expectation": "Expected and did not come",
}


@dataclass(frozen=True, slots=True)
class Publication:
    """What the page is made from."""

    command: str
    policy: Policy
    replayed: Sequence[Replayed]
    scores: Sequence[Score]  # ours first
    floors: Sequence[Floor]
    noise: Sequence[Replayed] = ()  # judged directly, for the rate of false quarantines alone


def score_rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """A row for each number, a column for each automation."""
    return [
        ("precision of what would be taken out", *(_share(s.precision_episodes) for s in scores)),
        ("the same, verdict by verdict", *(_share(s.precision_calls) for s in scores)),
        ("hardware faults found within 2 sweeps", *(_share(s.recall) for s in scores)),
        ("the same, counted from the onset", *(_share(s.recall_onset) for s in scores)),
        ("found at all", *(_share(s.recall_ever) for s in scores)),
        ("sweeps to find, median", *(_number(s.median_delay) for s in scores)),
        ("sweeps to find, 95 %", *(_number(s.p95_delay) for s in scores)),
        ("right failure class", *(_share(s.right_class) for s in scores)),
        ("calibration error (ECE), all claims", *(_ece(s.reliability) for s in scores)),
        ("ECE, disruptive claims", *(_ece(s.reliability_disruptive) for s in scores)),
        ("false quarantines per 10,000 node-days of noise", *(_rate(s.noise) for s in scores)),
        ("wrongly disruptive where none may be", *(_share(s.never) for s in scores)),
        ("expectations kept", *(_share(s.expectations) for s in scores)),
    ]


def numbers(
    policy: Policy, replayed: Sequence[Replayed], scores: Sequence[Score], floors: Sequence[Floor]
) -> dict[str, Any]:
    """Everything as plain data, for `-o json`."""
    return {
        "policy": {"version": policy.version, "hash": policy.hash},
        "traces": [
            {
                "name": r.trace.name,
                "kind": r.trace.kind,
                "seed": r.trace.seed,
                "sweeps": len(r.trace.sweeps),
                "node_days": r.trace.node_days,
                "incidents": sorted(r.incidents),
                "warnings": list(r.warnings),
                "seconds": round(r.seconds, 3),
            }
            for r in replayed
        ],
        "scores": {s.who: _plain(s) for s in scores},
        "floors": [
            {"name": f.name, "limit": f.limit, "value": f.value, "is_kept": f.is_kept}
            for f in floors
        ],
    }


def _plain(score: Score) -> dict[str, Any]:
    shares = {
        name: {"hits": share.hits, "total": share.total, "value": share.value}
        for name in (
            "precision_episodes", "precision_calls", "recall", "recall_onset", "recall_ever",
            "right_class", "never", "expectations",
        )
        for share in [getattr(score, name)]
    }  # fmt: skip
    return {
        **shares,
        "median_delay_sweeps": score.median_delay,
        "p95_delay_sweeps": score.p95_delay,
        "confusion": [
            {"truth": truth, "said": said, "episodes": count}
            for (truth, said), count in score.confusion.items()
        ],
        "reliability": asdict(score.reliability),
        "reliability_disruptive": asdict(score.reliability_disruptive),
        "claims": {name: asdict(b) for name, b in score.claims.items()},
        "false_quarantines": asdict(score.noise),
        "wrongs": [asdict(w) for w in score.wrongs],
    }


# --------------------------------------------------------------------------- the page


def publication(made: Publication) -> str:
    """docs/decisions.md."""
    ours = made.scores[0]
    parts = [
        _HEAD.format(way=_BY_HAND if "--direct" in made.command.split() else _BY_PROMETHEUS),
        _fenced(made.command),
        _about(made),
        "## The numbers\n",
        _table(("", *(_NAMES.get(s.who, s.who) for s in made.scores)), score_rows(made.scores)),
        _HOW,
        *_floors(made.floors),
        "## Is the confidence true?\n",
        _CALIBRATION,
        _table(("said", "claims", "mean", "true"), _bins(ours.reliability)),
        "Only verdicts that take a node out:\n",
        _table(("said", "claims", "mean", "true"), _bins(ours.reliability_disruptive)),
        "By the class that was said:\n",
        _table(("class", "claims", "mean", "true"), _of_classes(ours)),
        "## Which class for which\n",
        "Episodes that were rightly taken out, by the true class and the one that was said.\n",
        _table(
            ("true", "said", "episodes"),
            [(truth, said, str(n)) for (truth, said), n in ours.confusion.items()],
        ),
        "## Where we are wrong\n",
        *_wrongs(ours.wrongs),
        "## The two others\n",
        _OTHERS,
        *(f"{_NAMES.get(s.who, s.who)}: {_worst(s)}\n" for s in made.scores[1:]),
    ]
    return "\n".join(parts).rstrip() + "\n"


_NAMES = {"thresholds": "plain thresholds", "fatal_events": "any fatal event"}
_HEAD = """# Decisions: how often they are right

Generated by `breakfix replay --write`; do not edit. {way} No node is taken out: the numbers are
those of the recommendations. `python -m tests.traces --seeds 1300-1300 --out FOLDER` makes the
traces of a seed. Made with:
"""
_BY_PROMETHEUS = """Each trace ([traces.md](traces.md)) is written
into a real Prometheus, and at every sweep the real observe and decide code judges it
([data-flow.md](data-flow.md)) by the policy ([policy.md](policy.md))."""
_BY_HAND = """At every sweep of each trace
([traces.md](traces.md)) the real decide code judges it ([data-flow.md](data-flow.md)) by the policy
([policy.md](policy.md)). There was no Prometheus between: a small PromQL of the project's own
answered the policy's queries, and tests hold its answers to those of a real one on samples."""
_HOW = """
- Taken out: the verdict's action is disruptive. It is right while a fault is on the node for which
  that is right, and for two sweeps more. An episode is one node of one trace, and its first such
  verdict decides.
- Found: recommended within two sweeps of the moment from which the telemetry says enough. A fault
  that a trace calls optional (asking a person is as right) does not count.
- A plain automation is always sure, so its calibration is that of the word "certain".
- Intervals in brackets are exact Poisson intervals of 95 %.
"""
_CALIBRATION = """Of the claims made with a confidence in that range, so many were true. A claim
is a verdict that names a class, sweep by sweep.
"""
_OTHERS = """On the same traces, through the same Prometheus. Plain thresholds: every signal of the
policy that is beyond its threshold acts at once when its class has a disruptive action; no second
source, common cause, boot grace or word about telemetry. Any fatal event: an XID for which the
vendor resets or restarts (or EKS and DCGM call fatal), a DCGM health watch that fails, or a node
that is not Ready.
"""


def _about(made: Publication) -> str:
    kinds = Counter(r.trace.kind for r in made.replayed)
    seeds = sorted({r.trace.seed for r in made.replayed})
    days = sum(r.trace.node_days for r in made.replayed)
    sweeps = sum(len(r.trace.sweeps) for r in made.replayed)
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    return (
        f"{len(made.replayed)} traces ({listed}), {sweeps} sweeps, {days:.1f} node-days. Seeds:"
        f" {_ranges(seeds)}. Policy {made.policy.version}, hash `{made.policy.hash[:16]}`.\n"
        + _of_noise(made.noise)
    )


def _of_noise(noise: Sequence[Replayed]) -> str:
    if not noise:
        return ""
    days = sum(r.trace.node_days for r in noise)
    seeds = _ranges(sorted({r.trace.seed for r in noise}))
    return (
        f"\nBeside them, for the rate of false quarantines alone, {days:.0f} node-days of noise"
        f" (seeds: {seeds}), judged by observe and decide without a Prometheus between"
        " (`--compare-direct` holds the verdicts of a sample against the real one).\n"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """1-3, 7."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    made = []
    for _, run in runs:
        members = [n for _, n in run]
        made.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ", ".join(made)


def _floors(floors: Sequence[Floor]) -> Iterable[str]:
    if floors:
        yield "## Floors\n"
        yield _table(
            ("floor", "kept"), [(str(f), "yes" if f.is_kept else "**no**") for f in floors]
        )


def _wrongs(wrongs: Sequence[Wrong]) -> Iterable[str]:
    if not wrongs:
        yield "Nowhere on these traces. That says something about them too.\n"
    for what, title in _WORDS.items():
        of_sort = [w for w in wrongs if w.what == what]
        if not of_sort:
            continue
        yield f"### {title}: {len(of_sort)}\n"
        yield _table(
            ("trace", "node", "at", "said", "true", "its words"),
            [
                (w.trace, w.node, "" if w.at is None else f"{w.at:.0f} s", w.said, w.truth,
                 _short(w.reason))
                for w in of_sort[:MOST_WRONGS]
            ],
        )  # fmt: skip
        if len(of_sort) > MOST_WRONGS:
            yield f"and {len(of_sort) - MOST_WRONGS} more.\n"


def _worst(score: Score) -> str:
    """The traces in which it is wrong most, by kind."""
    kinds = Counter(w.kind for w in score.wrongs if w.what == "wrong_action")
    if not kinds:
        return "nothing wrongly taken out."
    listed = ", ".join(f"{n} in {kind}" for kind, n in kinds.most_common())
    where = sum(n for kind, n in kinds.items() if kind in NEVER_KINDS)
    return (
        f"wrongly takes out {sum(kinds.values())} nodes ({listed}); {where} of them where nothing"
        " may be taken out."
    )


def _bins(reliability: Reliability) -> list[tuple[str, ...]]:
    return [
        (f"{b.low:.1f} - {b.high:.1f}", str(b.claims), f"{b.mean_confidence:.3f}",
         f"{b.share_right:.3f}")
        for b in reliability.bins
    ]  # fmt: skip


def _of_classes(score: Score) -> list[tuple[str, ...]]:
    return [
        (name, str(b.claims), f"{b.mean_confidence:.3f}", f"{b.share_right:.3f}")
        for name, b in score.claims.items()
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(columns), "|" + "---|" * len(columns), *(_row(r) for r in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_safe(c) for c in cells) + " |"


def _safe(cell: str) -> str:
    """Text from traces stays data: no column, line or tag of the page comes from it."""
    return " ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;")


def _fenced(command: str) -> str:
    return f"```\n{' '.join(command.split())}\n```\n"


def _short(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _share(share: Share) -> str:
    if share.value is None:
        return "-"
    return f"{share.value:.4f} ({share.hits}/{share.total})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ece(reliability: Reliability) -> str:
    return "-" if reliability.ece is None else f"{reliability.ece:.4f} ({reliability.claims})"


def _rate(rate: Rate) -> str:
    if rate.rate is None:
        return "-"
    return f"{rate.rate:.2f} [{rate.low:.2f}, {rate.high:.2f}] ({rate.events}/{rate.node_days:.1f})"
