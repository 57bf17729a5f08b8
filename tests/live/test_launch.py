"""Launches: what the agent gets, what nobody else may see, and every way in which a launch fails."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, tmux
from tests.live.fleet import STANDIN, Fleet, alive, last_words, wait_for

DUMP = """\
import json, os, signal, sys
with open(sys.argv[1] + ".new", "w") as out:
    json.dump({"argv": sys.argv[2:], "environ": dict(os.environ), "cwd": os.getcwd()}, out)
os.replace(sys.argv[1] + ".new", sys.argv[1])
print("dumped", flush=True)
signal.pause()
"""
WORDS = [
    "two  words",
    "",
    "it's",
    '"quoted"',
    "end;",
    ";",
    "#{pid}",
    "#(touch hacked)",
    "%H%%s",
    "$(touch hacked)",
    "`touch hacked`",
    "back\\slash",
    "*",
    "~",
    "-x",
    "--",
    "é ❯ 日本",
    "{}",
    "a=b",
]


def dumping(fleet: Fleet, *words: str) -> tuple[str, Path]:
    """Return the command of an agent that writes down what it was given, and where it writes that."""
    program, dump = fleet.folder / "dump.py", fleet.folder / "dump.json"
    program.write_text(DUMP)
    return shlex.join([sys.executable, str(program), str(dump), *words]), dump


def given(dump: Path) -> dict[str, Any]:
    wait_for("the agent wrote down what it was given", dump.exists)
    found: dict[str, Any] = json.loads(dump.read_text())
    return found


def explain(fleet: Fleet, name: str = "bob") -> dict[str, Any]:
    return fleet.call("explain", name=name)


def failed(fleet: Fleet, name: str = "bob", timeout: float = 20.0) -> dict[str, Any]:
    """Wait until a launch has failed and is cleared away; return what `explain` says."""

    def look() -> dict[str, Any] | None:
        found = explain(fleet, name)
        intent = found["intent"]
        over = found["agent"]["phase"] == "down" and found["agent"]["cause"] == "launch-failed"
        return found if over and intent is not None and intent["done_at"] is not None else None

    told = wait_for(f"the launch of {name} failed", look, timeout)
    fleet.await_watcher(name, "stopped")
    return told


def no_loop(fleet: Fleet, name: str = "bob", generation: int = 1) -> None:
    """It stays down over several ticks and check_delays."""
    fleet.await_ticks(3)
    view = fleet.view(name)
    assert (view["phase"], view["generation"]) == ("down", generation)
    with fleet.store() as store:
        assert len(store.launches(name)) == generation


# -- what the agent gets -------------------------------------------------------------------------------


def test_the_agent_gets_its_own_variables_and_nothing_of_circusd_s(fleet: Fleet) -> None:
    home = fleet.folder / "home"
    home.mkdir()
    command, dump = dumping(fleet)
    fleet.agent("bob", failover__command=command, failover__account="one")
    fleet.settings["accounts"] = [{"name": "one", "runtime": "command", "home": str(home)}]
    fleet.settings["shared"] = {"root": str(fleet.folder / "shared"), "links": []}
    fleet.start(SECRET_OF_CIRCUSD="hunter2", PYTHONPATH="/nonsense", FAILOVER_IDENTITY="other", TMUX="/x,1,0")
    fleet.await_up("bob")
    environ = given(dump)["environ"]
    with fleet.store() as store:
        (launch,) = store.launches("bob")
    assert environ["FAILOVER_IDENTITY"] == "bob"
    assert environ["FAILOVER_GENERATION"] == "1"
    assert environ["FAILOVER_CONVERSATION"] == launch.conversation
    assert environ["FAILOVER_HOME"] == str(home)
    base = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    ours = {
        f"FAILOVER_{name}"
        for name in ("IDENTITY", "GENERATION", "LAUNCH", "CONVERSATION", "HOME", "STATE_DIR")
    }
    ini = {"FAILOVER_CONFIG", "FAILOVER_TEST_FLEET"}
    terminal = {"TERM", "TMUX", "TMUX_PANE", "PWD", "OLDPWD", "SHLVL", "_"}
    assert set(environ) <= base | ours | ini | terminal
    assert environ["TMUX"].startswith(f"{fleet.socket('bob')},")
    assert environ["TERM"].startswith(("screen", "tmux"))


def test_each_launch_gets_its_own_generation_and_conversation(fleet: Fleet) -> None:
    command, dump = dumping(fleet)
    fleet.agent("bob", failover__command=command)
    fleet.start()
    fleet.await_up("bob")
    first = given(dump)["environ"]
    dump.unlink()
    assert fleet.ctl("restart", "bob").code == 0
    second = given(dump)["environ"]
    assert (first["FAILOVER_GENERATION"], second["FAILOVER_GENERATION"]) == ("1", "2")
    assert first["FAILOVER_CONVERSATION"] != second["FAILOVER_CONVERSATION"]


def test_hostile_arguments_variables_and_folders_arrive_as_they_are(fleet: Fleet) -> None:
    folder = fleet.folder / 'it\'s a "dir" #{pid} %H $(touch hacked) é;'
    folder.mkdir()
    command, dump = dumping(fleet, *WORDS)
    fleet.agent("bob", failover__command=command, working_dir=str(folder))
    values = {f"V{number}": word for number, word in enumerate(WORDS) if word == word.strip() and word}
    fleet.sections["env:bob"] = {**values, "LINES3": "one\n  two;\n  #{three}"}
    fleet.start()
    fleet.await_up("bob")
    seen = given(dump)
    assert seen["argv"] == WORDS
    assert seen["cwd"] == str(folder)
    assert {name: seen["environ"].get(name) for name in values} == values
    assert seen["environ"]["LINES3"] == "one\ntwo;\n#{three}"
    assert not list(fleet.folder.rglob("hacked"))


def test_a_hostile_state_directory_and_account_home_are_no_matter(fleet: Fleet) -> None:
    fleet.state = fleet.folder / "s t'a\"t;e #{pid} %H $(touch hacked) é;"
    home = fleet.folder / "h o'm\"e #{pid} %H $(touch hacked);"
    home.mkdir()
    fleet.settings["state_dir"] = fleet.state.name
    fleet.settings["accounts"] = [{"name": "one", "runtime": "command", "home": home.name}]
    fleet.settings["shared"] = {"root": "shared", "links": []}
    fleet.agent("bob", failover__account="one")
    fleet.start()
    answer = fleet.view("bob")
    if answer["phase"] == "refused":
        # `$(` in a path of failover.yaml is the start of a variable: said so, rather than guessed.
        assert "$" in answer["reason"]
        fleet.end()
        fleet.state = fleet.folder / "s t'a\"t;e #{pid} %H é;"
        home = fleet.folder / "h o'm\"e #{pid} %H;"
        home.mkdir()
        fleet.settings["state_dir"] = fleet.state.name
        fleet.settings["accounts"] = [{"name": "one", "runtime": "command", "home": home.name}]
        fleet.start()
    (view,) = fleet.await_up("bob")
    assert view["socket"] == str(fleet.socket("bob"))
    fleet.await_screen("bob", "standin ready")
    fleet.type("bob", "hello")
    fleet.await_screen("bob", "done: hello")
    assert list(home.rglob("*.jsonl"))
    log = fleet.state / "panes" / "bob.log"
    wait_for("the pane log", lambda: log.exists() and b"done: hello" in log.read_bytes())
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert not alive(view["pid"])
    assert not list(fleet.folder.rglob("hacked"))


# -- what nobody else may see --------------------------------------------------------------------------

SECRET = "hunter2-0d1c9f"


def command_lines(fleet: Fleet) -> list[str]:
    lines = []
    for process in fleet.processes():
        try:
            lines.append(Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return lines


def test_a_secret_is_on_no_command_line_and_in_no_file_that_others_read(fleet: Fleet) -> None:
    command, dump = dumping(fleet)
    fleet.agent("bob", failover__command=command, failover__ready_secs="0.5")
    fleet.sections["env:bob"] = {"API_KEY": SECRET}
    fleet.start()
    seen: set[str] = set()

    def up() -> bool:
        seen.update(command_lines(fleet))
        return fleet.view("bob")["phase"] == "up" and any("wait-for" in line for line in seen)

    wait_for("bob is up", up)
    assert given(dump)["environ"]["API_KEY"] == SECRET
    (fleet.folder / "dump.json").unlink()
    fleet.call("stop", name="bob")
    wait_for("it stops", lambda: seen.update(command_lines(fleet)) or fleet.view("bob")["phase"] == "stopped")
    assert any("wait-for" in line for line in seen) and any("new-session" in line for line in seen)
    assert not [line for line in seen if SECRET in line]
    fleet.end()
    holders = []
    for path in fleet.state.rglob("*"):
        if path.is_file() and SECRET.encode() in path.read_bytes():
            holders.append(path)
    assert holders == []
    assert SECRET not in fleet.log.read_text()


def test_everything_in_the_state_directory_is_for_its_owner_only(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.agent("crash", failover__command="/nonexistent/agent")
    fleet.agent("eve", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="1")
    fleet.prefix = ("/bin/sh", "-c", 'umask 0 && exec "$0" "$@"')  # the loosest that it may be started with
    fleet.start()
    fleet.await_up("bob", "eve")
    fleet.await_phase("crash", "down")
    os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
    fleet.call("stop", name="eve")
    modes: dict[str, int] = {}

    def look() -> bool:
        for path in [fleet.state, *fleet.state.rglob("*")]:
            try:
                modes[str(path)] = path.lstat().st_mode
            except OSError:
                continue
        return fleet.view("eve")["phase"] == "stopped"

    wait_for("eve is stopped", look)
    assert len(modes) > 12
    wrong = {
        path: oct(mode)
        for path, mode in modes.items()
        if stat.S_IMODE(mode) & 0o077 or (stat.S_ISDIR(mode) and stat.S_IMODE(mode) != 0o700)
    }
    assert wrong == {}


def test_the_launch_script_is_gone_once_the_agent_is_up(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    wait_for("run is empty", lambda: not list((fleet.state / "run").iterdir()))
    assert [path.name for path in (fleet.state / "spool").iterdir()] == ["wake.sock"]


# -- launches that fail --------------------------------------------------------------------------------

NOT_READY = "60"
"""As `failover.ready_secs`: what ends at once has not become ready, however late it was at that."""


def test_a_missing_command_fails_once_and_is_named(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command="no-such-agent --flag", failover__ready_secs=NOT_READY)
    fleet.agent("eve")
    fleet.start()
    told = failed(fleet)
    assert "no-such-agent" in told["agent"]["reason"]
    launch = told["launches"][0]
    assert "no-such-agent" in launch["last_output"]
    assert (launch["exit_status"], launch["planned"]) == (127, False)
    assert "no-such-agent" in fleet.ctl("explain", "bob").out
    fleet.await_up("eve")
    no_loop(fleet)
    done = fleet.ctl("start", "bob")
    assert done.code == 3 and "no-such-agent" in done.err
    assert fleet.view("bob")["generation"] == 2


def test_a_command_that_is_not_executable_fails_and_is_named(fleet: Fleet) -> None:
    program = fleet.work / "agent"
    program.write_text("#!/bin/sh\nsleep 600\n")
    fleet.agent("bob", failover__command=str(program), failover__ready_secs=NOT_READY)
    fleet.start()
    told = failed(fleet)
    assert str(program) in told["launches"][0]["last_output"]
    assert told["launches"][0]["exit_status"] in (126, 127)
    no_loop(fleet)


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_ends_at_once_is_a_failed_launch_with_its_output(fleet: Fleet, code: int) -> None:
    program = fleet.work / "agent.sh"
    program.write_text(last_words("no api key", code))
    fleet.agent("bob", failover__command=f"/bin/sh {program}", failover__ready_secs=NOT_READY)
    fleet.start()
    told = failed(fleet)
    launch = told["launches"][0]
    assert (launch["exit_status"], launch["exit_signal"]) == (code, None)
    assert "no api key" in launch["last_output"]
    assert "no api key" in told["agent"]["reason"] and str(code) in told["agent"]["reason"]
    no_loop(fleet)
    assert not tmux.serves(fleet.socket("bob"))


def test_a_start_reports_how_the_launch_failed(fleet: Fleet) -> None:
    command = f"{STANDIN} --crash-at-start 9"
    fleet.agent("bob", autostart="False", failover__command=command, failover__ready_secs=NOT_READY)
    fleet.start()
    done = fleet.ctl("start", "bob")
    assert done.code == 3
    assert "exit status 9" in done.err and "crashed on request" in done.err


def test_an_agent_that_dies_by_a_signal_at_once_says_which(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command="sh -c 'kill -SEGV $$'", failover__ready_secs=NOT_READY)
    fleet.start()
    told = failed(fleet)
    assert told["launches"][0]["exit_signal"] == signal.SIGSEGV
    assert "signal 11" in told["agent"]["reason"]


def test_a_working_directory_that_is_gone_at_a_start_is_refused(fleet: Fleet) -> None:
    folder = fleet.folder / "tree"
    folder.mkdir()
    fleet.agent("bob", working_dir=str(folder), autostart="False")
    fleet.start()
    folder.rmdir()
    done = fleet.ctl("start", "bob")
    assert done.code == 3 and "tree" in done.err
    assert fleet.view("bob")["phase"] == "refused"
    no_copies(fleet)


def test_a_working_directory_that_vanishes_after_its_check_fails_the_launch(fleet: Fleet) -> None:
    folder = fleet.folder / "tree"
    folder.mkdir()
    fake_tmux(fleet, f"[ -d {folder} ] && rmdir {folder}")
    fleet.agent("bob", working_dir=str(folder))
    fleet.start()
    told = failed(fleet)
    assert str(folder) in told["launches"][0]["last_output"]
    no_copies(fleet)
    no_loop(fleet)


def no_copies(fleet: Fleet, name: str = "bob") -> None:
    """Nothing of the agent runs: no process that carries its name."""
    mark = f"FAILOVER_IDENTITY={name}".encode()

    def left() -> list[int]:
        return [p.pid for p in fleet.processes() if mark in (process_table.environ(p.pid) or frozenset())]

    wait_for("nothing carries its name", lambda: not left())


def fake_tmux(fleet: Fleet, before: str) -> Path:
    """Put a tmux on PATH that runs a shell command before every new-session; return its folder."""
    tools = fleet.folder / "tools"
    tools.mkdir()
    real = shutil.which("tmux")
    before = before.format(tools=tools, real=real)
    (tools / "tmux").write_text(f'#!/bin/sh\ncase "$*" in *new-session*) {before};; esac\nexec {real} "$@"\n')
    (tools / "tmux").chmod(0o755)
    fleet.environment["PATH"] = f"{tools}{os.pathsep}{fleet.environment['PATH']}"
    return tools


def test_a_keeper_that_is_killed_before_it_made_the_session_fails_the_launch(fleet: Fleet) -> None:
    """A `tmux` that never comes back stands for a keeper that is slow; the keeper and it are killed."""
    tools = fake_tmux(fleet, "[ -e {tools}/slow ] && exec sleep 600")
    (tools / "slow").touch()
    fleet.agent("bob")
    fleet.start()
    fleet.await_phase("bob", "starting")
    keeper = wait_for("a keeper", lambda: fleet.keeper("bob"))
    os.kill(keeper, signal.SIGKILL)
    told = failed(fleet)
    assert "keeper" in told["agent"]["reason"]
    assert told["launches"][0]["planned"] is False
    no_loop(fleet)
    (tools / "slow").unlink()
    assert fleet.ctl("start", "bob").code == 0
    (view,) = fleet.await_up("bob")
    assert view["generation"] == 2


def test_a_keeper_killed_right_after_the_session_is_there_costs_nothing(fleet: Fleet) -> None:
    fleet.agent("bob", failover__ready_secs="1.5")
    fleet.start()
    pid = wait_for("its pid", lambda: fleet.view("bob")["pid"])
    keeper = fleet.keeper("bob")
    os.kill(keeper, signal.SIGKILL)
    wait_for("another keeper", lambda: fleet.call("list", name="bob")["pids"] not in ([], [keeper]))
    (view,) = fleet.await_up("bob")
    assert (view["pid"], view["generation"]) == (pid, 1)
    assert alive(fleet.keeper("bob"))


@pytest.fixture
def race(fleet: Fleet) -> Path:
    """A tmux that, once, makes a session of the same name by hand before the real new-session runs."""
    by_hand = f'{{real}} -f /dev/null -S {fleet.socket("bob")} new-session -d -s bob "{STANDIN}"'
    return fake_tmux(fleet, "[ -e {tools}/armed ] && rm {tools}/armed && " + by_hand)


def test_a_session_made_by_hand_in_a_race_is_adopted(fleet: Fleet, race: Path) -> None:
    (race / "armed").touch()
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    assert not (race / "armed").exists()
    assert view["cause"] == "adopted-foreign"
    (pane,) = tmux.panes(fleet.socket("bob"), "bob")
    assert view["pid"] == pane.pid
    with fleet.store() as store:
        newest, failed_one = store.launches("bob")
    assert "duplicate session" in (failed_one.last_output or "")
    assert failed_one.ended_at is not None and newest.ended_at is None
    assert alive(fleet.keeper("bob"))
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert not alive(view["pid"])


def test_an_agent_that_never_becomes_ready_fails_after_boot_secs(fleet: Fleet) -> None:
    fleet.agent("bob", failover__ready_secs="60", failover__boot_secs="1.5", failover__stop_secs="0.5")
    fleet.start()
    told = failed(fleet)
    assert "1.5 s" in told["launches"][0]["last_output"] or "1.5 s" in told["agent"]["reason"]
    pids = [int(line["pid"]) for line in fleet.lifecycle() if line["ev"] == "launched"]
    assert pids and not any(alive(pid) for pid in pids)
    no_copies(fleet)
    no_loop(fleet)


# -- prepare -------------------------------------------------------------------------------------------


def test_prepare_runs_before_the_agent_and_its_time_is_not_the_agent_s(fleet: Fleet) -> None:
    command, dump = dumping(fleet)
    prepare = "until cat given > prepared; do sleep 0.05; done; echo $FAILOVER_IDENTITY >> prepared"
    fleet.agent("bob", failover__command=command, failover__prepare=prepare)
    fleet.start()
    fleet.await_phase("bob", "starting")
    wait_for("it has begun", (fleet.work / "prepared").exists)
    assert not dump.exists()
    (fleet.work / "new").write_text("it's;\n")
    (fleet.work / "new").rename(fleet.work / "given")
    fleet.await_up("bob")
    assert (fleet.work / "prepared").read_text() == "it's;\nbob\n"
    wait_for("the agent wrote down what it was given", dump.exists)
    assert dump.stat().st_mtime_ns >= (fleet.work / "prepared").stat().st_mtime_ns


def test_prepare_that_fails_fails_the_launch_with_its_output(fleet: Fleet) -> None:
    fleet.agent("bob", failover__prepare="echo cannot fetch; exit 4")
    fleet.start()
    told = failed(fleet)
    output = told["launches"][0]["last_output"]
    assert "cannot fetch" in output and "failover.prepare ended with 4" in output
    assert "failover.prepare" in told["agent"]["reason"]
    no_loop(fleet)
    no_copies(fleet)


def test_prepare_that_takes_too_long_fails_the_launch_and_nothing_of_it_stays(fleet: Fleet) -> None:
    pids = fleet.folder / "pids"
    command = f"sleep 600 & setsid sleep 600 & echo $! > {pids}; echo stuck; wait"
    fleet.agent("bob", failover__prepare=command, failover__prepare_secs="2", failover__stop_secs="0.5")
    fleet.start()
    told = failed(fleet)
    assert "did not end within 2 s" in told["launches"][0]["last_output"]
    assert "stuck" in told["launches"][0]["last_output"]
    assert not alive(int(pids.read_text()))
    no_copies(fleet)
    no_loop(fleet)


def test_a_stop_during_prepare_ends_all_of_it(fleet: Fleet) -> None:
    pids = fleet.folder / "pids"
    fleet.agent("bob", failover__prepare=f"sleep 600 & echo $! > {pids}; wait", failover__stop_secs="1")
    fleet.start()
    wait_for("prepare runs", lambda: pids.exists() and pids.read_text().strip())
    fleet.await_phase("bob", "starting")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "stopped"
    assert not alive(int(pids.read_text()))
    no_copies(fleet)


# -- the pane log --------------------------------------------------------------------------------------


def test_pane_output_goes_to_the_agent_s_log(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    fleet.type("bob", "/burst 300")
    log = fleet.state / "panes" / "bob.log"
    wait_for("all of it", lambda: b"line 300\r\n" in log.read_bytes())
    text = log.read_bytes()
    assert all(b"line %d\r\n" % number in text for number in range(1, 301))
    assert fleet.ctl("restart", "bob").code == 0
    fleet.await_screen("bob", "standin ready")
    wait_for("the next launch is appended", lambda: log.read_bytes().count(b"standin ready") == 2)


HOSTILE_LOGS = [
    "plain",
    "two words",
    "it's",
    'a"b',
    "end;",
    "#{pid}",
    "%H",
    "$(touch hacked)",
    "é;#(id) `id`",
]


def closed(fleet: Fleet, socket: Path) -> None:
    """End a server, and wait until what writes its log has seen that: it is in the middle of no turn."""
    tmux.run(socket, ["kill-server"])
    wait_for("the log is closed", lambda: not fleet.running(b"bs=4096"))


@pytest.mark.parametrize("name", HOSTILE_LOGS)
def test_a_rotated_pane_log_keeps_every_byte_in_order(fleet: Fleet, name: str) -> None:
    folder = fleet.folder / name
    folder.mkdir()
    log = folder / f"{name}.log"
    socket = fleet.folder / "log.sock"
    lines = 500_000
    script = f"stty -opost; read -r go; seq 1 {lines}; echo finished; sleep 600"
    tmux.run(socket, ["-f", "/dev/null", "new-session", "-d", "-x", "200", "-s", "log", script])
    # What circus_failover.tmux gives to pipe-pane, with turns that are small enough to see many.
    tmux.run(socket, ["pipe-pane", "-t", "=log:", tmux.pane_log_command(log, 3000, 40)])
    tmux.run(socket, ["send-keys", "-t", "=log:", "Enter"])

    def parts() -> list[Path]:
        numbered = {int(p.suffix[1:]): p for p in folder.iterdir() if p.suffix[1:].isdigit()}
        return [*(numbered[n] for n in sorted(numbered, reverse=True)), *([log] if log.exists() else [])]

    def text() -> bytes:
        return b"".join(part.read_bytes() for part in parts())

    def end() -> bytes:
        return b"".join(part.read_bytes()[-100:] for part in parts()[-2:])

    whole = b"".join(b"%d\n" % number for number in range(1, lines + 1)) + b"finished\n"
    # What ends the last batch of reads is turned away with it.
    wait_for("the end is written", lambda: b"finished\n" in end())
    closed(fleet, socket)
    assert text().endswith(whole)
    turned = [part for part in parts() if part != log]
    assert turned, "it was never rotated"
    # One batch of reads may come on top of the bound, not more.
    assert all(3000 <= part.stat().st_size <= 3000 + 256 * 4096 for part in turned)
    assert all(stat.S_IMODE(part.stat().st_mode) == 0o600 for part in parts())
    assert sorted(p.name.split(".log")[0] for p in folder.iterdir()) == [name] * len(parts())
    assert not list(fleet.folder.rglob("hacked"))


def test_only_so_many_rotated_logs_are_kept(fleet: Fleet) -> None:
    log, socket = fleet.folder / "bob.log", fleet.folder / "log.sock"
    # It is turned when a batch of 256 reads is done: at about every second Enter.
    script = "while read -r line; do seq 1 50000; done"
    tmux.run(socket, ["-f", "/dev/null", "new-session", "-d", "-s", "log", script])
    tmux.run(socket, ["pipe-pane", "-t", "=log:", tmux.pane_log_command(log, 500, 3)])

    turned: set[tuple[int, int]] = set()

    def enter() -> bool:
        tmux.run(socket, ["send-keys", "-t", "=log:", "Enter"])
        newest = fleet.folder.joinpath("bob.log.1").stat()
        turned.add((newest.st_ino, newest.st_mtime_ns))
        return len(turned) > 5

    wait_for("six rotations", enter)
    closed(fleet, socket)
    assert sorted(path.name for path in fleet.folder.glob("bob.log.*")) == [
        "bob.log.1",
        "bob.log.2",
        "bob.log.3",
    ]
