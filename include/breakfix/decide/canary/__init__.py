"""Canary comparisons: what was seen of two cohorts becomes proceed, roll_back or continue. Pure."""

from breakfix.decide.canary.changes import find_deploys, find_fact_changes, last_known, mixture
from breakfix.decide.canary.holding import hold_changes
from breakfix.decide.canary.verdict import compare

__all__ = ["compare", "find_deploys", "find_fact_changes", "hold_changes", "last_known", "mixture"]
