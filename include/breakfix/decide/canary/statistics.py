"""The tests beside the fixed ratios. Pure; scipy is imported when it is first needed.

All are one-sided, for the canary being worse, so that a canary that is better never counts as
different.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Above so many requests the normal approximation is as good, and Fisher's test slow (ours).
EXACT_UP_TO = 200_000


def rate_p_value(
    canary_bad: float, canary_all: float, stable_bad: float, stable_all: float
) -> float:
    """How likely the canary's share of bad ones is by chance, were both cohorts alike.

    Fisher's exact test; pooled two-proportion z-test for large counts. Counts of Prometheus are
    extrapolated, hence rounded here.
    """
    n1, n2 = round(canary_all), round(stable_all)
    if n1 <= 0 or n2 <= 0:
        return 1.0
    x1, x2 = min(round(canary_bad), n1), min(round(stable_bad), n2)
    if n1 + n2 > EXACT_UP_TO:
        return _two_proportions(x1, n1, x2, n2)
    from scipy.stats import hypergeom

    return min(1.0, float(hypergeom.sf(x1 - 1, n1 + n2, x1 + x2, n1)))


def _two_proportions(x1: int, n1: int, x2: int, n2: int) -> float:
    pooled = (x1 + x2) / (n1 + n2)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    if spread == 0.0:
        return 1.0
    return 0.5 * math.erfc((x1 / n1 - x2 / n2) / spread / math.sqrt(2))


def shift_p_value(
    canary: Sequence[float], stable: Sequence[float], *, is_higher_worse: bool
) -> float:
    """How likely values of nodes or pods lie so far to the worse side by chance (Mann-Whitney)."""
    if not canary or not stable:
        return 1.0
    from scipy.stats import mannwhitneyu

    side = "greater" if is_higher_worse else "less"
    found = mannwhitneyu(sorted(canary), sorted(stable), alternative=side)
    return float(found.pvalue) if math.isfinite(found.pvalue) else 1.0
