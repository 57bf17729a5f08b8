"""Files of a client are read without ever waiting for anybody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circus_failover.agents import RUNTIMES, client_file
from circus_failover.agents.transcripts import last_records

NAMES = {
    "claude": (".claude.json", "settings.json", ".credentials.json"),
    "codex": ("config.toml", "auth.json"),
}


def test_only_a_regular_file_of_a_sane_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert client_file.read(path) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        client_file.read(path, 4)
    before = len(os.listdir("/dev/fd"))
    for wrong in (tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="no regular file"):
            client_file.read(wrong)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="no regular file"):
        client_file.read(tmp_path / "fifo")
    assert list(last_records(tmp_path / "fifo")) == []
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("runtime", sorted(NAMES))
def test_a_fifo_in_the_place_of_a_home_s_file_stops_nobody(tmp_path: Path, runtime: str) -> None:
    for name in NAMES[runtime]:
        os.mkfifo(tmp_path / name)
    variables = {
        "HOME": str(tmp_path.parent),
        **RUNTIMES[runtime].environment(tmp_path, {"HOME": "/nowhere"}),
    }
    report = RUNTIMES[runtime].check_home(None, tmp_path, variables, ())
    assert any("no regular file" in problem.found for problem in report.problems), report
