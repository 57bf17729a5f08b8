"""lifecycle.log: one line a record whatever is in it, rotated, private, and never a reason to fail."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circus_failover import logfmt
from circus_failover.lifecycle_log import LifecycleLog


def parse(text: str) -> dict[str, str]:
    """Read one logfmt line by the rule its docs give, and nothing of the module's own."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)').match(text, at)
        assert match, f"not logfmt at {at}: {text!r}"
        found[match[1]] = match[2]
        at = match.end()
    return found


def unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    escapes = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}

    def back(match: re.Match[str]) -> str:
        word = match[1]
        return chr(int(word[1:], 16)) if word[0] in "xuU" else escapes[word]

    return re.sub(r'\\(x..|u....|U........|[nrt"\\])', back, value[1:-1])


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@example('say "hi"\n')
@example("\u2028\x85\x1b[31m\x00")
@example("a=b")
@example("\U000e0001 astral")
@example("\\n")
@example('"')
def test_any_value_stays_on_one_line_and_can_be_read_back(raw: str) -> None:
    text = logfmt.line(1763719412.25, "exit", {"reason": raw, "after": "x"})
    assert len(text.splitlines()) == 1
    assert all(ch.isprintable() for ch in text)
    record = parse(text)
    assert list(record) == ["ts", "ev", "reason", "after"]
    assert record["ts"] == "2025-11-21T10:03:32.250Z"
    assert unquote(record["reason"]) == raw


@pytest.mark.parametrize(
    "raw, shown",
    [(None, ""), ("", ""), (True, "true"), (False, "false"), (7, "7"), (0.5, "0.5"), ("a b", '"a b"')],
)
def test_plain_values_are_readable(raw: object, shown: str) -> None:
    assert logfmt.value(raw) == shown


def test_the_log_is_private_and_rotates_within_its_bounds(tmp_path: Path) -> None:
    log = LifecycleLog(tmp_path / "lifecycle.log", max_bytes=1000, files=3)
    for number in range(200):
        log.write(0.0, "launch", n=number)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["lifecycle.log", "lifecycle.log.1", "lifecycle.log.2"]
    assert all(path.stat().st_size <= 1000 for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    lines = [line for path in reversed(files) for line in path.read_text().splitlines()]
    numbers = [int(parse(line)["n"]) for line in lines]
    assert numbers == list(range(numbers[0], 200))
    assert log.failed == 0


def test_a_log_that_cannot_be_written_is_counted_and_never_raises(tmp_path: Path) -> None:
    log = LifecycleLog(tmp_path / "gone" / "lifecycle.log")
    log.write(0.0, "launch", identity="bob")
    log.write(0.0, "launch", identity="bob")
    assert log.failed == 2
    assert "gone" in log.last_error
    (tmp_path / "gone").mkdir()
    log.write(0.0, "launch", identity="bob")
    assert log.failed == 2
    assert len((tmp_path / "gone" / "lifecycle.log").read_text().splitlines()) == 1


def test_a_log_that_somebody_removed_or_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "lifecycle.log"
    log = LifecycleLog(path)
    for number, take_away in enumerate((path.unlink, lambda: path.rename(tmp_path / "kept"), lambda: None)):
        log.write(0.0, "launch", n=number)
        take_away()
    assert [parse(line)["n"] for line in path.read_text().splitlines()] == ["2"]
    assert [parse(line)["n"] for line in (tmp_path / "kept").read_text().splitlines()] == ["1"]
    assert log.failed == 0


def test_a_full_disk_is_counted_and_never_raises() -> None:
    log = LifecycleLog(Path("/dev/full"))
    log.write(0.0, "launch", identity="bob")
    assert log.failed >= 1


def test_a_lone_surrogate_does_not_lose_the_record(tmp_path: Path) -> None:
    log = LifecycleLog(tmp_path / "lifecycle.log")
    log.write(0.0, "exit", reason=os.fsdecode(b"a\xffb"))
    (line,) = (tmp_path / "lifecycle.log").read_text().splitlines()
    assert json.loads(parse(line)["reason"].replace("\\x", "\\u00")) == "a\udcffb"
    assert log.failed == 0
