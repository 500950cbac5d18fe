"""Fixtures of the integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shop import Shop, open_shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """An empty shop of the test's own."""
    shop = open_shop(tmp_path)
    yield shop
    shop.catalogue.engine.dispose()
