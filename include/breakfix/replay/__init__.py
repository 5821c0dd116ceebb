"""Replay: labelled traces through a real Prometheus, the real observe and the real decide; and how
often the verdicts are right.
"""
