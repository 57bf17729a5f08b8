"""Reports to circusd: in order, each once, never lost, and one that cannot be read stops no other."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from circus_failover import spool


class Taken:
    """What was applied, in order; `fail` names reports at which applying fails."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Any]] = []
        self.fail: set[Any] = set()

    def __call__(self, name: str, report: dict[str, Any]) -> None:
        if report.get("n") in self.fail:
            raise OSError("the disk is full")
        self.reports.append((name, report.get("n")))

    @property
    def numbers(self) -> list[Any]:
        return [number for _, number in self.reports]


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_report_arrives_whole_and_its_file_goes(tmp_path: Path) -> None:
    report = {"kind": "ended", "n": 1, "text": 'a "b"\n;é \udcff'}
    path = spool.send(tmp_path, report)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [path.name]
    got: list[dict[str, Any]] = []
    assert spool.take_in(tmp_path, lambda name, raw: got.append(raw)) == []
    assert got == [report]
    assert os.listdir(tmp_path) == []


def test_a_large_report_arrives_whole(tmp_path: Path) -> None:
    text = "x" * 3_000_000
    spool.send(tmp_path, {"kind": "ended", "text": text})
    got: list[int] = []
    spool.take_in(tmp_path, lambda name, report: got.append(len(report["text"])))
    assert got == [len(text)]


def test_reports_are_taken_in_by_the_time_they_were_written(tmp_path: Path) -> None:
    stamps = [999_999_999, 1_000_000_000, 2, 1_763_719_412_000_000_000]
    for stamp in stamps:
        put(tmp_path, spool.report_name("ended", stamp), json.dumps({"kind": "ended", "n": stamp}))
    taken = Taken()
    spool.take_in(tmp_path, taken)
    assert taken.numbers == sorted(stamps)


def test_reports_sent_one_after_the_other_keep_their_order(tmp_path: Path) -> None:
    for number in range(50):
        spool.send(tmp_path, {"kind": "ended", "n": number})
    taken = Taken()
    spool.take_in(tmp_path, taken)
    assert taken.numbers == list(range(50))


def test_a_report_that_could_not_be_applied_waits_and_so_do_those_after_it(tmp_path: Path) -> None:
    for number in range(3):
        spool.send(tmp_path, {"kind": "ended", "n": number})
    taken = Taken()
    taken.fail = {1}
    with pytest.raises(OSError):
        spool.take_in(tmp_path, taken)
    assert taken.numbers == [0]
    assert len(os.listdir(tmp_path)) == 2
    taken.fail = set()
    spool.take_in(tmp_path, taken)
    assert taken.numbers == [0, 1, 2]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'"a word"', b"[1]", b"{}", b'{"n": 1}', b"\xff\xfe", b'{"kind": "ended"', b"null"],
    ids=["empty", "cut", "text", "list", "no kind", "no kind either", "bytes", "half", "null"],
)
def test_a_report_that_cannot_be_read_is_set_aside_and_the_next_is_taken_in(
    tmp_path: Path, content: bytes
) -> None:
    bad = put(tmp_path, spool.report_name("ended", 1), content)
    put(tmp_path, spool.report_name("ended", 2), json.dumps({"kind": "ended", "n": 2}))
    taken = Taken()
    assert spool.take_in(tmp_path, taken) == [bad.name]
    assert taken.numbers == [2]
    assert os.listdir(tmp_path) == [f"{bad.name}.bad"]
    assert (tmp_path / f"{bad.name}.bad").read_bytes() == content
    assert spool.take_in(tmp_path, taken) == []


@pytest.mark.parametrize("error", [KeyError("pid"), ValueError("x"), TypeError("y"), AttributeError("z")])
def test_a_report_that_makes_no_sense_to_its_reader_is_set_aside_too(
    tmp_path: Path, error: Exception
) -> None:
    for number in range(3):
        spool.send(tmp_path, {"kind": "ended", "n": number})
    taken: list[int] = []

    def apply(name: str, report: dict[str, Any]) -> None:
        if report["n"] == 1:
            raise error
        taken.append(report["n"])

    assert len(spool.take_in(tmp_path, apply)) == 1
    assert taken == [0, 2]
    (left,) = os.listdir(tmp_path)
    assert left.endswith(".json.bad")


def test_what_is_not_a_finished_report_is_left_alone(tmp_path: Path) -> None:
    names = [".00000000000000000001-1-ended.json.tmp", ".hidden.json", "notes.txt", "wake.sock"]
    for name in names:
        put(tmp_path, name, "{")
    taken = Taken()
    assert spool.take_in(tmp_path, taken) == []
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert taken.reports == []


def test_a_report_that_cannot_be_opened_just_now_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left: that says nothing about the report, which must not be set aside."""
    spool.send(tmp_path, {"kind": "ended", "n": 1})
    taken = Taken()

    def none_left(self: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(self))

    with monkeypatch.context() as patched, contextlib.suppress(OSError):
        patched.setattr(Path, "read_bytes", none_left)
        spool.take_in(tmp_path, taken)
    assert taken.reports == []
    assert spool.take_in(tmp_path, taken) == []
    assert taken.numbers == [1]


def test_a_folder_named_like_a_report_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / spool.report_name("ended", 1)).mkdir()
    put(tmp_path, spool.report_name("ended", 2), json.dumps({"kind": "ended", "n": 2}))
    taken = Taken()
    assert len(spool.take_in(tmp_path, taken)) == 1
    assert taken.numbers == [2]


def test_the_datagram_wakes_a_listener_and_draining_lets_it_sleep(tmp_path: Path) -> None:
    server = spool.listen(tmp_path)
    assert server is not None
    try:
        assert stat.S_IMODE((tmp_path / spool.WAKE_SOCKET).stat().st_mode) == 0o600
        for _ in range(5):
            spool.send(tmp_path, {"kind": "ended"})
        assert server.recv(16) == b"1"
        spool.drain(server)
        with pytest.raises(BlockingIOError):
            server.recv(16)
    finally:
        server.close()


def test_sending_with_nobody_there_or_a_dead_listener_s_socket_is_no_error(tmp_path: Path) -> None:
    spool.send(tmp_path, {"kind": "ended"})
    server = spool.listen(tmp_path)
    assert server is not None
    server.close()
    spool.send(tmp_path, {"kind": "ended"})
    again = spool.listen(tmp_path)
    assert again is not None
    again.close()
    taken = Taken()
    spool.take_in(tmp_path, taken)
    assert len(taken.reports) == 2


def test_a_listener_that_does_not_read_holds_up_no_sender(tmp_path: Path) -> None:
    server = spool.listen(tmp_path)
    assert server is not None
    try:
        for _ in range(2000):
            spool.wake(tmp_path)
    finally:
        server.close()


def test_a_folder_too_deep_for_a_socket_still_takes_reports(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a" * 50] * 4)
    deep.mkdir(parents=True)
    assert spool.listen(deep) is None
    spool.send(deep, {"kind": "ended", "n": 1})
    taken = Taken()
    spool.take_in(deep, taken)
    assert taken.numbers == [1]


def test_a_report_whose_time_has_not_come_waits_and_those_after_it_do_not(tmp_path: Path) -> None:
    for number in range(3):
        spool.send(tmp_path, {"kind": "ended", "n": number})
    early, taken = {1}, Taken()

    def apply(name: str, report: dict[str, Any]) -> None:
        if report["n"] in early:
            raise spool.Later
        taken(name, report)

    assert spool.take_in(tmp_path, apply) == []
    assert (taken.numbers, len(os.listdir(tmp_path))) == ([0, 2], 1)
    early.clear()
    spool.take_in(tmp_path, apply)
    assert (taken.numbers, os.listdir(tmp_path)) == ([0, 2, 1], [])
