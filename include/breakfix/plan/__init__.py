"""plan: what to do about the verdicts, within limits; every "no" is a record with its reason."""

from breakfix.plan.planning import make_plan

__all__ = ["make_plan"]
