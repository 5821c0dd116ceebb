"""Decide: verdicts from an observation. Pure: no clock, no network, no files."""

from breakfix.decide.judgement import judge
from breakfix.decide.report import judgement_json

__all__ = ["judge", "judgement_json"]
