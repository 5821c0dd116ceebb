"""What a canary comparison rests on: who is in the cohorts, and what they served."""

from breakfix.observe.canary.evidence import read_evidence
from breakfix.observe.canary.selectors import find_cohort

__all__ = ["find_cohort", "read_evidence"]
