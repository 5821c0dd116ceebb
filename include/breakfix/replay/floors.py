"""Floors that a score must keep, as `--require precision=0.99,recall=0.95` names them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from breakfix.errors import SettingsError
from breakfix.replay.score import Score

#: name -> (the number, may it be at most so much rather than at least)
_NUMBERS: Mapping[str, tuple[Callable[[Score], float | None], bool]] = {
    "precision": (lambda s: s.precision_episodes.value, False),
    "recall": (lambda s: s.recall.value, False),
    "recall_onset": (lambda s: s.recall_onset.value, False),
    "class": (lambda s: s.right_class.value, False),
    "ece": (lambda s: s.reliability.ece, True),
    "ece_disruptive": (lambda s: s.reliability_disruptive.ece, True),
    "false_quarantines": (lambda s: s.noise.rate, True),
    "never": (lambda s: float(s.never.hits), True),
    "expectations": (lambda s: s.expectations.value, False),
}

#: The floors of the project, for its own corpus.
FLOORS = "precision=0.99,recall=0.95,class=0.9,ece=0.05,false_quarantines=1,never=0"


@dataclass(frozen=True, slots=True)
class Floor:
    """One floor and what came out; `value` None: no trace says anything about it."""

    name: str
    limit: float
    is_ceiling: bool
    value: float | None

    @property
    def is_kept(self) -> bool:
        if self.value is None:
            return True
        return self.value <= self.limit if self.is_ceiling else self.value >= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.is_ceiling else ">="
        found = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.name} {found} ({sign} {self.limit:g})"


def check_floors(text: str, score: Score) -> Sequence[Floor]:
    """The floors of `name=number,...` against the score. Raises SettingsError."""
    floors = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.partition("=")
        if name not in _NUMBERS:
            known = ", ".join(sorted(_NUMBERS))
            raise SettingsError(f"--require: no number is called {name!r}; known: {known}")
        try:
            limit = float(number)
        except ValueError:
            raise SettingsError(f"--require: {part!r} is not NAME=NUMBER") from None
        read, is_ceiling = _NUMBERS[name]
        floors.append(Floor(name, limit, is_ceiling, read(score)))
    return floors
