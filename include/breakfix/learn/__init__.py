"""Learn: what people and outcomes say of past verdicts becomes a report with proposals. Pure.

Nothing here is ever applied by itself: a proposal is text for a person to paste.
"""

from breakfix.learn.history import Episode, History, episodes_of
from breakfix.learn.labels import LabelSource, Truth, truth_of_case
from breakfix.learn.report import Report, make_report

__all__ = [
    "Episode",
    "History",
    "LabelSource",
    "Report",
    "Truth",
    "episodes_of",
    "make_report",
    "truth_of_case",
]
