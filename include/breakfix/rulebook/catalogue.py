"""The vendor's catalogue of XIDs, as it ships with the package."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def xid_catalogue() -> Mapping[int, Mapping[str, str]]:
    """XID -> the vendor's row: mnemonic, description, category, severity, immediate action..."""
    file = resources.files("breakfix").joinpath("data/xid_catalogue.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {int(row["xid"]): row for row in rows}
