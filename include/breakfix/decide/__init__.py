"""Decide: verdicts from an observation. Pure: no clock, no network, no files."""

from breakfix.decide.judgement import judge
from breakfix.decide.report import judgement_json, why_json
from breakfix.decide.why import Why, explain

__all__ = ["Why", "explain", "judge", "judgement_json", "why_json"]
