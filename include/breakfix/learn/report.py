"""The learning report: how right each class and signal was, and what should change. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from breakfix.learn.history import Episode, History, episodes_of
from breakfix.learn.labels import LabelSource
from breakfix.learn.lemons import Offender, offenders
from breakfix.learn.proposals import Proposal, overlay_of, propose
from breakfix.learn.statistics import Calibration, Share, calibration_of, share_of
from breakfix.learn.tallies import ClassTally, SignalTally
from breakfix.model import FailureClass, Label
from breakfix.policy import Policy


@dataclass(frozen=True, slots=True)
class Report:
    """What was learned between `since` and `at`. `overlay`: the proposals, to paste; or empty."""

    at: datetime
    since: datetime
    policy_version: str
    policy_hash: str
    episodes: int
    labels: Mapping[LabelSource, int]
    classes: tuple[ClassTally, ...]
    signals: tuple[SignalTally, ...]
    calibration: Calibration
    offenders: tuple[Offender, ...]
    proposals: tuple[Proposal, ...]
    overlay: str


def make_report(history: History, policy: Policy, *, since: datetime, now: datetime) -> Report:
    """The report over the episodes that began since; offenders by the policy's own window.

    Purely computational: the same history gives the same report, in whatever order it comes.
    """
    every = episodes_of(history)
    episodes = [e for e in every if e.at >= since]
    classes = _classes(episodes, policy)
    signals = _signals(episodes, policy)
    proposals = propose(classes, signals, policy)
    pairs = [(e.confidence, e.is_right) for e in episodes]
    return Report(
        at=now,
        since=since,
        policy_version=policy.version,
        policy_hash=policy.hash,
        episodes=len(episodes),
        labels=Counter(e.truth.source for e in episodes),
        classes=classes,
        signals=signals,
        calibration=calibration_of(
            sorted((c, right) for c, right in pairs if right is not None),
            policy.learning.calibration_bins,
        ),
        offenders=offenders(every, policy.learning.lemon, now),
        proposals=proposals,
        overlay=overlay_of(proposals),
    )


# --------------------------------------------------------------------------- classes


def _classes(episodes: Sequence[Episode], policy: Policy) -> tuple[ClassTally, ...]:
    names = sorted({e.failure_class for e in episodes})
    return tuple(
        _class(name, [e for e in episodes if e.failure_class is name], policy) for name in names
    )


def _class(name: FailureClass, mine: Sequence[Episode], policy: Policy) -> ClassTally:
    """Precision is that of what takes nodes out: an unproven suspicion is counted beside it."""
    disruptive = [e for e in mine if e.is_disruptive]
    returns = sorted(e.return_s for e in mine if e.return_s is not None)
    advice = [e for e in mine if e.is_advice]
    agreed = [e for e in advice if e.is_followed or e.truth.label is Label.REAL]
    refused = [e for e in advice if e not in agreed and e.truth.label is Label.NOISE]
    return ClassTally(
        failure_class=name,
        mode=policy.class_rule(name).mode,
        ladder=policy.class_rule(name).ladder,
        cases=sum(e.is_case for e in mine),
        recommended=len(advice),
        suspected=len(mine) - len(disruptive),
        known=sum(e.truth.label is Label.KNOWN for e in mine),
        unlabelled=sum(e.truth.label is None for e in mine),
        by_person=sum(e.truth.source is LabelSource.PERSON for e in mine),
        precision=_share(disruptive, policy),
        suspicions=_share([e for e in mine if not e.is_disruptive], policy),
        overrides=sum(e.is_override for e in mine),
        false_quarantines=sum(e.is_case and e.truth.label is Label.NOISE for e in mine),
        advice_agreed=len(agreed),
        advice_refused=len(refused),
        returned=len(returns),
        return_median_s=median(returns) if returns else None,
        return_longest_s=returns[-1] if returns else None,
    )


def _share(episodes: Iterable[Episode], policy: Policy) -> Share:
    known = [e.is_right for e in episodes if e.is_right is not None]
    return share_of(sum(known), len(known), policy.learning.level)


# --------------------------------------------------------------------------- signals


def _signals(episodes: Sequence[Episode], policy: Policy) -> tuple[SignalTally, ...]:
    """A tally per signal, and per XID of the signals that report XIDs: weights are theirs."""
    xids = {s.name for s in policy.signals if s.is_xid}
    spoken: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        for sign in {(s.signal, s.key if s.signal in xids else "") for s in episode.signs}:
            spoken.setdefault(sign, []).append(episode)
    return tuple(
        _signal(signal, xid, spoken[signal, xid], policy) for signal, xid in sorted(spoken)
    )


def _signal(signal: str, xid: str, episodes: Sequence[Episode], policy: Policy) -> SignalTally:
    """`alone`: where no other independence group spoke, so that it stands on its own weight."""
    rule = next((s for s in policy.signals if s.name == signal), None)
    meaning = policy.xids.get(int(xid)) if xid.isdecimal() else None
    source = meaning or rule
    alone = [e for e in episodes if len({s.group for s in e.signs if not s.is_context}) <= 1]
    return SignalTally(
        signal=signal,
        xid=xid,
        mode=source.mode.value if source else "",
        weight=source.weight if source else None,
        is_xid_rule=meaning is not None,
        seen=len(episodes),
        precision=_real(episodes, policy),
        alone=_real(alone, policy),
    )


def _real(episodes: Iterable[Episode], policy: Policy) -> Share:
    """A signal is right when there was a fault, whatever class it was given."""
    labels = [e.truth.label for e in episodes]
    real, noise = labels.count(Label.REAL), labels.count(Label.NOISE)
    return share_of(real, real + noise, policy.learning.level)
