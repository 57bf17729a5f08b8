"""exits.log read back: the deaths that have their line, as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from circus_failover.canary import exits_log
from circus_failover.canary.death import Death
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.logfmt import line
from circus_failover.process_table import ProcessId

NOW = 1_800_000_000.25
SERVER = Watched(
    socket='/tmp/a b\\"c=d.sock',
    server=ProcessId(4242, 7),
    boot="boot",
    asked_at=NOW - 100,
    drill=False,
    agents=(WatchedAgent("alpha", 1, None, None, None, None),),
)
DEATH = Death(
    watched=SERVER,
    at=NOW,
    up=99.5,
    number=9,
    status=None,
    how="pidfd-info",
    cause="oom-likely",
    detected="post-factum",
    seen=NOW - 3.5,
    evidence='SIGKILL; kernel log: Killed process 4242 (tmux: "server") total=5kB \\ umlaut ä',
    forensics="/state/forensics/x.json",
)


@given(some.dictionaries(some.from_regex(r"[a-z_]{1,12}", fullmatch=True), some.text(), max_size=6))
def test_every_value_is_read_back_as_it_was_written(values: dict[str, str]) -> None:
    written = line(NOW, "server-exit", values)
    assert exits_log.fields(written) == {
        "ts": written[3:27],
        "ev": "server-exit",
        **values,
    }


@pytest.mark.parametrize(
    "death",
    [
        DEATH,
        DEATH._replace(number=None, status=0, seen=None, evidence="exit status 0", forensics=None),
        DEATH._replace(number=None, status=None, how="none", up=None),
    ],
)
def test_a_death_that_has_its_line_is_the_death_that_was_written(tmp_path: Path, death: Death) -> None:
    tmp_path.joinpath("exits.log").write_text(f"{death.line()}\n")
    assert exits_log.recorded(str(tmp_path), [(SERVER, NOW - 1)]) == {SERVER.name: death}


def test_it_is_found_after_a_rotation_too(tmp_path: Path) -> None:
    tmp_path.joinpath("exits.log.1").write_text(f"{DEATH.line()}\n")
    tmp_path.joinpath("exits.log").write_text("ts=x ev=session-exit server_pid=4242\n")
    assert exits_log.recorded(str(tmp_path), [(SERVER, NOW - 1)]) == {SERVER.name: DEATH}


def test_neither_a_log_from_before_it_lived_nor_another_server_nor_a_drill_speaks_of_it(
    tmp_path: Path,
) -> None:
    text = f"{DEATH.line()}\n"
    tmp_path.joinpath("exits.log").write_text(text)
    tmp_path.joinpath("canary").mkdir()
    tmp_path.joinpath("canary", "drill.log").write_text("")
    assert exits_log.recorded(str(tmp_path), [(SERVER, NOW + 1)]) == {}
    for other in (
        SERVER._replace(socket="/tmp/other"),
        SERVER._replace(server=ProcessId(424, 7)),
        SERVER._replace(drill=True),
    ):
        assert exits_log.recorded(str(tmp_path), [(other, NOW - 1)]) == {}


def test_a_line_that_was_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    text = DEATH.line()
    for end in range(len(text)):
        tmp_path.joinpath("exits.log").write_text(f"{text[:end]}\n")
        assert exits_log.recorded(str(tmp_path), [(SERVER, NOW - 1)]) == {}, text[:end]


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "exits.log"
    log.write_text("x" * exits_log.TAIL + "\n" + DEATH.line() + "\n")
    assert SERVER.name in exits_log.recorded(str(tmp_path), [(SERVER, NOW - 1)])
    log.write_text(DEATH.line() + "\n" + "x" * exits_log.TAIL + "\n")
    assert exits_log.recorded(str(tmp_path), [(SERVER, NOW - 1)]) == {}
