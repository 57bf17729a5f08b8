"""The launch script, run by the real /bin/sh: the agent gets exactly what was given, whatever is in it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from circus_failover import launch_file, private_file, process_table

DUMP = """\
import json, os, sys
with open(sys.argv[1], "w") as out:
    json.dump({
        "argv": [os.fsencode(word).hex() for word in sys.argv[2:]],
        "environ": {name: os.fsencode(value).hex() for name, value in os.environ.items()},
        "cwd": os.fsencode(os.getcwd()).hex(),
        "pid": os.getpid(),
    }, out)
"""
HOSTILE = [
    "plain",
    "",
    " two  spaces ",
    'it\'s "quoted"',
    "end;",
    ";",
    "\\;",
    "a\\",
    "#{pid}",
    "#(id)",
    "%H%%",
    "$(id)",
    "`id`",
    "$HOME ${PATH}",
    "!!",
    "*?[a]",
    "~root",
    "-n",
    "--",
    "a=b",
    "tab\tand\nnewline\n",
    "\r",
    "\x1b[31m",
    "é ❯ 日本 \U0001f600",
    os.fsdecode(b"\xff\xfe bytes"),
    "x" * 20000,
]


class Place:
    """A folder with a spool, and the script of one launch run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.dump = folder / "dump.json"
        self.program = folder / "dump.py"
        self.program.write_text(DUMP)

    def run(
        self,
        *,
        words: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        working_dir: Path | None = None,
        command: Sequence[str] | None = None,
        prepare: str | None = None,
        prepare_secs: float = 600,
        spool: Path | None = None,
        own: Mapping[str, str] | None = None,
        timeout: float = 20,
    ) -> subprocess.CompletedProcess[bytes]:
        script = self.folder / "bob.1.launch"
        base = {"PATH": os.environ["PATH"]}
        private_file.write(
            script,
            launch_file.render(
                identity="bob",
                generation=7,
                environment={**base, **(environment or {})},
                working_dir=working_dir or self.folder,
                command=command or [sys.executable, str(self.program), str(self.dump), *words],
                prepare=prepare,
                prepare_secs=prepare_secs,
                spool=spool or self.spool,
                report_stem="00000000000000000001-launch-bob-7",
            ),
        )
        assert stat.S_IMODE(script.stat().st_mode) == 0o600
        return subprocess.run(
            ["/bin/sh", str(script)],
            env={
                **os.environ,
                "TERM": "screen",
                "TMUX": "/x/a,b.sock,4711,0",
                "TMUX_PANE": "%3",
                **(own or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )

    def seen(self) -> dict[str, Any]:
        raw = json.loads(self.dump.read_text())
        return {
            "argv": [os.fsdecode(bytes.fromhex(word)) for word in raw["argv"]],
            "environ": {name: os.fsdecode(bytes.fromhex(text)) for name, text in raw["environ"].items()},
            "cwd": os.fsdecode(bytes.fromhex(raw["cwd"])),
            "pid": raw["pid"],
        }

    def reports(self) -> list[dict[str, Any]]:
        names = sorted(os.listdir(self.spool))
        assert not [name for name in names if name.endswith(".tmp")]
        return [json.loads((self.spool / name).read_text()) for name in names]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def shared_place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    yield Place(folder)
    shutil.rmtree(folder)


def test_hostile_arguments_and_variables_arrive_as_they_are(place: Place) -> None:
    environment = {f"V{number}": text for number, text in enumerate(HOSTILE)}
    done = place.run(words=HOSTILE, environment=environment)
    assert done.returncode == 0, done
    seen = place.seen()
    assert seen["argv"] == HOSTILE
    assert {name: seen["environ"].get(name) for name in environment} == environment


values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(values, max_size=5), values)
@example(["'"], "'\\''")
@example(["{identity}", "{{}}"], "{spool}")
def test_any_argument_and_any_value_arrive_as_they_are(
    shared_place: Place, words: list[str], value: str
) -> None:
    done = shared_place.run(words=words, environment={"V": value})
    assert done.returncode == 0, done
    seen = shared_place.seen()
    assert seen["argv"] == words
    assert seen["environ"]["V"] == value


def test_the_agent_gets_what_is_given_and_nothing_of_whoever_started_the_server(place: Place) -> None:
    place.run(environment={"GIVEN": "1"}, own={"SECRET_OF_CIRCUSD": "x", "FAILOVER_STAGE": "", "stage": "y"})
    assert set(place.seen()["environ"]) - {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"} == {
        "PATH",
        "GIVEN",
        "TERM",
        "TMUX",
        "TMUX_PANE",
    }


SHELL_NAMES = (
    "stage target start line server IFS PATH OPTIND PPID PS1 ENV HOME PWD CDPATH"
    " LINENO MAIL UID EUID report FAILOVER_STAGE _"
)


@pytest.mark.parametrize("name", SHELL_NAMES.split())
def test_a_variable_with_a_meaning_to_the_shell_changes_neither_launch_nor_report(
    place: Place, name: str
) -> None:
    value = "/nonexistent" if name == "PATH" else "12:x"
    done = place.run(environment={name: value})
    assert done.returncode == 0, done
    if name not in ("PWD", "FAILOVER_STAGE", "_", "LINENO", "OPTIND"):
        assert place.seen()["environ"][name] == value
    (report,) = place.reports()
    assert report["pid"] == place.seen()["pid"] and report["start"] > 0


def test_a_name_that_no_shell_knows_is_left_out_and_the_rest_arrives() -> None:
    watcher = {"GOOD": "1", "with-dash": "2", "1st": "3", "ünï": "4", "a b": "5", "nul": "a\0b", "": "6"}
    given = launch_file.agent_environment({}, watcher, {})
    assert given == {"GOOD": "1"}


def test_the_base_of_circusd_s_environment_is_all_that_is_taken() -> None:
    own = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "AWS_SECRET": "x", "FAILOVER_CONFIG": "y", "TMUX": "z"}
    given = launch_file.agent_environment(own, {"LANG": "de"}, {"FAILOVER_IDENTITY": "bob"})
    assert given == {"PATH": "/bin", "HOME": "/h", "LANG": "de", "FAILOVER_IDENTITY": "bob"}


def test_a_section_cannot_put_an_agent_into_another_tmux() -> None:
    assert launch_file.agent_environment({}, {"TMUX": "/other,1,0", "TMUX_PANE": "%9"}, {}) == {}


def test_what_is_ours_wins_over_what_the_section_says() -> None:
    given = launch_file.agent_environment({}, {"FAILOVER_IDENTITY": "eve"}, {"FAILOVER_IDENTITY": "bob"})
    assert given == {"FAILOVER_IDENTITY": "bob"}


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'a"b', "a;b;", "#{pid}", "$(id)", "%H", "-x", "é日", "back\\slash", "a\nb"]
)
def test_it_starts_in_any_folder_and_reports_to_any_spool(place: Place, name: str) -> None:
    folder, spool = place.folder / name, place.folder / f"{name}.spool"
    folder.mkdir()
    spool.mkdir()
    done = place.run(working_dir=folder, spool=spool)
    assert done.returncode == 0, done
    assert place.seen()["cwd"] == str(folder)
    assert os.listdir(spool) == ["00000000000000000001-launch-bob-7-1.json"]


def test_the_report_says_which_process_becomes_the_agent(place: Place) -> None:
    place.run()
    (report,) = place.reports()
    assert report == {
        "kind": "launched",
        "stage": "agent",
        "identity": "bob",
        "generation": 7,
        "pid": place.seen()["pid"],
        "start": report["start"],
        "pane": "%3",
        "server_pid": 4711,
    }
    assert report["start"] > 0
    (file,) = place.spool.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


def test_the_start_time_is_the_kernel_s_own(place: Place) -> None:
    """The pid stays the same through both execs, and so does its start time."""
    place.run(command=["/bin/sh", "-c", f"cat /proc/$$/stat > {place.dump}"])
    (report,) = place.reports()
    stat_line = process_table._parse_stat(report["pid"], place.dump.read_bytes())
    assert stat_line.id == process_table.ProcessId(report["pid"], report["start"])


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./none", "-x", "a b", "$(id)"])
def test_a_missing_program_is_named_and_ends_with_127(place: Place, program: str) -> None:
    done = place.run(command=[program, "x"])
    assert done.returncode == 127
    assert program.encode() in done.stdout + done.stderr


def test_a_program_that_is_not_executable_is_named(place: Place) -> None:
    path = place.folder / "agent"
    path.write_text("#!/bin/sh\necho never\n")
    done = place.run(command=[str(path)])
    assert done.returncode in (126, 127)
    assert str(path).encode() in done.stdout + done.stderr
    assert b"never" not in done.stdout


def test_a_folder_is_no_program(place: Place) -> None:
    done = place.run(command=[str(place.folder)])
    assert done.returncode in (126, 127)
    assert str(place.folder).encode() in done.stdout + done.stderr


def test_a_working_directory_that_vanished_ends_it_before_anything_is_reported(place: Place) -> None:
    done = place.run(working_dir=place.folder / "gone")
    assert done.returncode == 126
    assert b"gone" in done.stderr
    assert place.reports() == []
    assert not place.dump.exists()


def test_a_spool_that_cannot_be_written_does_not_keep_the_agent_from_running(place: Place) -> None:
    done = place.run(spool=place.folder / "gone")
    assert done.returncode == 0
    assert place.seen()["argv"] == []


# -- prepare -------------------------------------------------------------------------------------------


def test_prepare_runs_before_the_agent_in_its_folder_with_its_variables(place: Place) -> None:
    done = place.run(prepare='echo "$GIVEN $PWD" > prepared; echo said', environment={"GIVEN": "it's"})
    assert done.returncode == 0, done
    assert (place.folder / "prepared").read_text() == f"it's {place.folder}\n"
    assert b"said" in done.stdout
    assert [report["stage"] for report in place.reports()] == ["prepare", "agent"]
    assert len({report["pid"] for report in place.reports()}) == 1


def test_prepare_that_fails_ends_the_launch_and_says_so(place: Place) -> None:
    done = place.run(prepare="echo no luck; exit 3")
    assert done.returncode == 125
    assert b"no luck" in done.stdout
    assert b"failover.prepare ended with 3" in done.stderr
    assert not place.dump.exists()
    assert [report["stage"] for report in place.reports()] == ["prepare"]


def test_prepare_that_takes_too_long_is_ended_with_all_it_started(place: Place) -> None:
    pids = place.folder / "pids"
    for secs in (0.5, 3, 12):  # the more, the surer it has started something by then
        done = place.run(prepare=f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait", prepare_secs=secs)
        assert done.returncode == 125
        assert f"did not end within {secs:g} s".encode() in done.stderr
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
    started = pids.read_text().split()
    assert len(started) == 2
    for pid in started:
        found = process_table.read(int(pid))
        assert found is None or found.run_state in "ZX"


def test_what_prepare_leaves_in_the_background_ends_when_it_succeeds(place: Place) -> None:
    """The command's process group ends with it, also when it ended well."""
    pids = place.folder / "pids"
    done = place.run(prepare=f"sleep 600 >/dev/null 2>&1 & echo $! > {pids}")
    assert done.returncode == 0
    found = process_table.read(int(pids.read_text()))
    assert found is None or found.run_state in "ZX"


def test_prepare_reads_nothing_that_is_typed(place: Place) -> None:
    done = place.run(prepare="read -r line && exit 9; exit 0")
    assert done.returncode == 0


# -- secrets -------------------------------------------------------------------------------------------


def test_the_script_is_gone_before_anything_of_the_agent_s_runs(place: Place) -> None:
    script = place.folder / "bob.1.launch"
    done = place.run(environment={"TOKEN": "Marker"}, prepare=f"test ! -e {script} || exit 9")
    assert done.returncode == 0, done
    assert place.seen()["environ"]["TOKEN"] == "Marker"
    assert not script.exists()


@pytest.mark.parametrize("path", ["/nonexistent", ""])
def test_it_is_gone_also_when_the_launch_fails_and_whatever_its_variables_say(
    place: Place, path: str
) -> None:
    done = place.run(environment={"PATH": path}, working_dir=place.folder / "gone")
    assert done.returncode == 126
    assert not (place.folder / "bob.1.launch").exists()


@pytest.mark.parametrize("what", ["missing", "not executable", "a folder", "not on PATH"])
def test_a_command_that_cannot_be_run_is_named(place: Place, what: str) -> None:
    program = place.folder / "it's $(id)"
    if what == "not executable":
        program.write_text("#!/bin/sh\n")
    elif what == "a folder":
        program.mkdir()
    named = program.name if what == "not on PATH" else str(program)
    done = place.run(command=[named, "--flag"])
    assert done.returncode == 127
    assert done.stdout.decode() == f"failover.command: {named} is not found or not executable\n"
    assert not done.stderr
    # What is there is run, also by a path below the working folder.
    (place.folder / "run").write_text("#!/bin/sh\nexit 3\n")
    (place.folder / "run").chmod(0o700)
    assert place.run(command=["./run"]).returncode == 3


def test_no_value_is_in_a_command_line_or_in_what_is_printed(place: Place) -> None:
    command = ["/bin/sh", "-c", f"cat /proc/*/cmdline >{place.dump} 2>/dev/null; :"]
    done = place.run(environment={"TOKEN": "Marker-of-a-secret"}, command=command, prepare="true")
    assert b"Marker-of-a-secret" not in place.dump.read_bytes() + done.stdout + done.stderr
    assert done.returncode == 0


def test_an_older_script_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "script"
    private_file.write(path, "x" * 1000)
    private_file.write(path, "short")
    assert path.read_text() == "short"
    assert os.listdir(tmp_path) == ["script"]


def test_a_write_that_fails_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        private_file.write(Path("/dev/full"), "x")


def test_a_file_that_says_it_already_is_left_alone_also_where_there_is_no_room(tmp_path: Path) -> None:
    path = tmp_path / "tmux.conf"
    private_file.keep(path, "as it was")
    (tmp_path / "tmux.conf.tmp").symlink_to("/dev/full")
    private_file.keep(path, "as it was")
    with pytest.raises(OSError, match="No space left on device"):
        private_file.keep(path, "otherwise")
    assert path.read_text() == "as it was"
