"""What each section of the policy is made of: a frozen rule, and the words a query may have."""

from __future__ import annotations

import re
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

#: What is no code in PromQL: comments and strings.
_QUOTED = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`""")
_PAIRS = {")": "(", "]": "[", "}": "{"}


class Rule(BaseModel):
    """A part of the policy. A key that it does not know is an error, not a wish that is ignored.

    Numbers are finite: no value is beyond infinity, and none compares with what is no number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_words(value: str, words: Collection[str], *, or_else: str = "") -> str:
    """The query as it is. Raises ValueError for a `$word` that is none of `words`, and for brackets
    or quotes that are not closed; with `or_else` also for a query without `$match`, whose lack
    would have that consequence.
    """
    unknown = sorted(set(re.findall(r"\$[a-z_]+", value)) - set(words))
    if unknown:
        msg = f"{', '.join(unknown)}: the words are {', '.join(sorted(words))}"
        raise ValueError(msg)
    if or_else and value and "$match" not in value:
        msg = f"needs $match in each selector, or it {or_else}"
        raise ValueError(msg)
    if wrong := _not_closed(value):
        msg = f"no PromQL: {wrong}"
        raise ValueError(msg)
    return value


def _not_closed(query: str) -> str:
    """What is wrong with the brackets and quotes of a query; "" for nothing."""
    hidden = [m[0] for m in _QUOTED.finditer(query)]
    if hidden and hidden[-1].startswith("#") and query.endswith(hidden[-1]):
        return "a comment at the end hides what is put behind the query"
    plain = _QUOTED.sub("", query)
    if quote := re.search(r"[\"'`]", plain):
        return f"a quote {quote[0]} is not closed"
    opened: list[str] = []
    for bracket in re.findall(r"[()\[\]{}]", plain):
        if bracket not in _PAIRS:
            opened.append(bracket)
        elif not opened or opened.pop() != _PAIRS[bracket]:
            return f"{bracket} closes nothing"
    return f"{opened[-1]} is not closed" if opened else ""
