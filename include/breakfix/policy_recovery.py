"""The rules of recovery: what becomes of other nodes when repairs fail, and who else is told."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from breakfix.durations import Seconds
from breakfix.policy_rule import Rule


class Others(StrEnum):
    """What becomes of nodes that are taken out, and that nothing was done to yet."""

    UNCORDON = "uncordon"  # given back as they were before us
    HOLD = "hold"  # they stay as they are until a person lets them go on
    ESCALATE = "escalate"  # they stay out, and people are told


class Recovery(Rule):
    """When repairs of one class fail, one after the other, its next one is not begun."""

    failures: int = Field(
        3, ge=0, description="So many cases of one class escalated after a drain or repair; 0: off"
    )
    window_s: Seconds = Field(3600.0, alias="window", description="opened within it of each other")
    others: Others = Others.ESCALATE


class Mirror(Rule):
    """Where else a node's state is written, for those who look there."""

    nvsentinel: bool = Field(
        default=False,
        description="Its state label, on nodes that NVSentinel itself has nothing to do with",
    )
