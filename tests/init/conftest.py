"""A folder in memory for tests that have hundreds of steps put on disk one by one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory() -> Iterator[Path]:
    """A temporary folder on a file system in memory, where there is one."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="failover-init-", dir=where) as folder:
        yield Path(folder)
