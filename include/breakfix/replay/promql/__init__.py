"""A small PromQL: as much of the language as the policy's queries use, over arrays, at many
instants at once. For direct replays, which judge more node-days than a Prometheus could hold; they
are compared with a real Prometheus, which has the last word.
"""

from breakfix.replay.promql.evaluate import Evaluator
from breakfix.replay.promql.syntax import metrics_of, parse, reach_s
from breakfix.replay.promql.vectors import Element, Stored

__all__ = ["Element", "Evaluator", "Stored", "metrics_of", "parse", "reach_s"]
