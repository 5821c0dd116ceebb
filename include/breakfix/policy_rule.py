"""What each section of the policy is made of: a frozen rule, and the words a query may have."""

from __future__ import annotations

import re
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict


class Rule(BaseModel):
    """A part of the policy. A key that it does not know is an error, not a wish that is ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_words(value: str, words: Collection[str], *, or_else: str = "") -> str:
    """The query as it is. Raises ValueError for a `$word` that is none of `words`; with `or_else`
    also for a query without `$match`, whose lack would have that consequence.
    """
    unknown = sorted(set(re.findall(r"\$[a-z_]+", value)) - set(words))
    if unknown:
        msg = f"{', '.join(unknown)}: the words are {', '.join(sorted(words))}"
        raise ValueError(msg)
    if or_else and value and "$match" not in value:
        msg = f"needs $match in each selector, or it {or_else}"
        raise ValueError(msg)
    return value
