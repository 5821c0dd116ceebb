"""Observe: what Prometheus and Kubernetes say at one instant, with the age and completeness of
every signal.
"""

from breakfix.observe.sweep import observe

__all__ = ["observe"]
