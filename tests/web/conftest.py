"""What several tests of the console get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.served import Served, serve


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A console that is served, without a circusd."""
    with serve(tmp_path) as found:
        yield found
