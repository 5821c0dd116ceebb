"""The ledger in both its forms."""

from __future__ import annotations

import pytest

from tests.fakes_ledger import FakeLedger


@pytest.fixture(params=["fake"])
def ledger(request):
    return FakeLedger("test")
