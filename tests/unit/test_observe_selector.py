"""Label selectors of the settings."""

from __future__ import annotations

import pytest

from breakfix.errors import SettingsError
from breakfix.observe.selector import matches

LABELS = {"nvidia.com/gpu.present": "true", "pool": "train"}


@pytest.mark.parametrize(
    ("selector", "is_match"),
    [
        ("", True),
        ("nvidia.com/gpu.present=true", True),
        ("nvidia.com/gpu.present==true", True),
        ("nvidia.com/gpu.present = true", None),
        ("nvidia.com/gpu.present", True),
        ("pool=train,nvidia.com/gpu.present=true", True),
        ("pool=train, nvidia.com/gpu.present=false", False),
        ("pool!=infer", True),
        ("pool!=train", False),
        ("zone!=a", True),
        ("!zone", True),
        ("!pool", False),
        ("zone=a", False),
        ("pool in (train)", None),
    ],
)
def test_selectors(selector: str, is_match: bool | None) -> None:
    if is_match is None:
        with pytest.raises(SettingsError, match="write a=b"):
            matches(LABELS, selector)
    else:
        assert matches(LABELS, selector) is is_match
