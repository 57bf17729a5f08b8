"""Reading the end of a file to which a client appends JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.agents.transcripts import BLOCK, last_records, newest_time, time_of


def write(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    path.write_bytes(
        b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    )
    return path


def test_records_come_newest_first_whatever_their_length(tmp_path: Path) -> None:
    records = [{"n": n, "fill": "x" * size} for n, size in enumerate((1, BLOCK, 3, 2 * BLOCK + 5, 0, 40))]
    path = write(tmp_path / "t", *records)
    assert list(last_records(path)) == records[::-1]


def test_no_more_is_read_than_allowed_and_a_record_cut_there_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t", {"n": 1}, {"n": 2}, {"n": 3})
    size = path.stat().st_size
    assert [record["n"] for record in last_records(path, size)] == [3, 2, 1]
    assert [record["n"] for record in last_records(path, size - 1)] == [3, 2]
    assert list(last_records(path, 0)) == []


def test_what_is_no_whole_record_is_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t",
        {"n": 1},
        b"\n\xff\xfe\n[1, 2]\nnull\n" + b"[" * 100_000 + b"\n" + b"9" * 10_000 + b"\n",
        {"n": 2},
        b'{"n": 3',
    )
    assert [record["n"] for record in last_records(path)] == [2, 1]


def test_a_file_that_cannot_be_read_has_no_records(tmp_path: Path) -> None:
    assert list(last_records(tmp_path / "none")) == []
    assert list(last_records(tmp_path)) == []
    assert newest_time(tmp_path / "none") is None


def test_a_writer_may_go_on_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t", *({"n": n, "fill": "x" * 600} for n in range(100)))
    records = last_records(path)
    assert next(records)["n"] == 99
    os.truncate(path, 700)
    assert all(record["n"] < 99 for record in records)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=30), max_size=3), max_size=20),
    st.integers(0, 2000),
)
def test_the_end_of_any_file_is_its_last_records(records: list[dict[str, str]], cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "t", *records)
        found = list(last_records(path, cut))
        assert found == records[::-1][: len(found)]
        ends = [len(json.dumps(record)) + 1 for record in records[::-1]]
        whole = sum(sum(ends[: n + 1]) < cut for n in range(len(ends)))
        assert len(found) >= whole, "what lies wholly inside is not left out"


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("2026-11-21T15:55:36.260Z", 1795276536.26),
        ("2026-11-21T15:55:36Z", 1795276536.0),
        ("2026-11-21T16:55:36.2604567+01:00", 1795276536.260456),
        ("2026-11-21T15:55:36", None),
        ("yesterday", None),
        ("", None),
        ("Z", None),
        (1795276536, None),
        (None, None),
    ],
)
def test_a_time_is_read_only_where_it_says_which_moment_it_is(stamp: object, seconds: float | None) -> None:
    assert time_of(stamp) == seconds


def test_the_newest_time_is_that_of_the_last_record_that_has_one(tmp_path: Path) -> None:
    path = write(tmp_path / "t", {"timestamp": "2026-11-21T15:55:36Z"}, {"type": "mode"}, {"timestamp": 7})
    assert newest_time(path) == 1795276536.0
