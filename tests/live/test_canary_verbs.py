"""What people see of the canary, beside a running fleet and without one: `canaries`, `deaths`, `drill`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circus.commands import get_commands

from circus_failover import completion, process_table
from circus_failover.canary import asking, starting, watched
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.ctl import App, parse_arguments
from circus_failover.drill_evidence import EXPECTED, fields, figures, judge
from circus_failover.logfmt import line
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from circus_failover.verbs.canary_lines import shortened
from tests import proc
from tests.live.fleet import BIN, Fleet, Result, alive, wait_for
from tests.live.test_ctl import completed

VERBS = ("canaries", "deaths", "drill")


def listed(fleet: Fleet) -> list[str]:
    """Return what is in the folder of the canary's list."""
    folder = fleet.state / watched.SERVERS
    return sorted(os.listdir(folder)) if folder.exists() else []


def mentions(path: Path) -> list[int]:
    """Return the processes that run with this path in their command line, but for failoverctl."""
    found = []
    for pid in process_table.table():
        command = proc.command_line(pid)
        if str(path).encode() in command and b"failoverctl" not in command and alive(pid):
            found.append(pid)
    return found


@pytest.fixture
def scratch(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which failoverctl makes its temporary directories."""
    made = fleet.folder / "tmp"
    made.mkdir(mode=0o700)
    fleet.environment["TMPDIR"] = str(made)
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


Ctl = Callable[..., Result]


@pytest.fixture
def ctl(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """failoverctl in this very process, in the fleet's folder: a third of a second less each time."""
    import circus_failover.verbs.local  # noqa: F401

    monkeypatch.chdir(fleet.folder)
    monkeypatch.setenv("CIRCUSCTL_ENDPOINT", fleet.endpoint)
    commands = get_commands()

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = App(commands).run_with(parse_arguments(list(arguments), commands))
        return Result(code, *capsys.readouterr())

    return run


def end_canary(state: Path) -> None:
    """End the canary of a state directory, and wait until it has ended."""
    canary = asking.holder(str(state))
    if canary is not None:
        process_table.send(canary, signal.SIGKILL)
        wait_for("the canary has ended", lambda: not process_table.may_run(canary))


# -- beside a fleet ----------------------------------------------------------------------------------


def test_a_fleet_its_canary_and_its_deaths_are_shown_also_while_circusd_is_down(
    fleet: Fleet, ctl: Ctl, scratch: Path
) -> None:
    fleet.canary()
    shared = str(fleet.folder / "shared")
    fleet.agent("alpha")
    for name in ("one", "two"):
        fleet.agent(name, failover__socket=shared)
    fleet.agent("beta")
    fleet.start()
    views = {view["identity"]: view for view in fleet.await_up("alpha", "beta", "one", "two")}

    def armed() -> dict[str, Any] | None:
        answer = ctl("--json", "canaries").json()
        return answer if sum(one["since"] is not None for one in answer["servers"]) == 3 else None

    answer = wait_for("three servers are armed", armed)
    assert (answer["status"], answer["running"], answer["reason"]) == ("ok", True, None)
    by_pid = {one["pid"]: one for one in answer["servers"]}
    assert sorted(by_pid[views["one"]["server_pid"]]["agents"]) == ["one", "two"]
    shown = ctl("canaries")
    assert shown.code == 0, shown
    assert f"canary pid {answer['pid']} has run for" in shown.out
    assert "watches 3 servers by" in shown.out
    assert f"learned by {answer['learns']}" in shown.out
    row = next(line.split() for line in shown.out.splitlines() if line.startswith("tmux/alpha.sock"))
    assert row[1:] == [str(views["alpha"]["server_pid"]), *row[2:4], answer["means"], "alpha"]
    assert "not armed" not in shown.out

    assert ctl("--json", "--endpoint", fleet.endpoint, "canaries").json()["pid"] == answer["pid"]
    drill = ctl("--json", "drill")
    assert drill.code == 0, drill
    held = drill.json()
    assert (held["status"], held["own_canary"], held["canary"]["pid"]) == ("ok", False, answer["pid"])
    assert (held["record"]["signal"], held["record"]["server_pid"]) == ("9", str(held["server"]["pid"]))
    assert not os.path.exists(held["snapshot"]["path"]) and held["snapshot"]["kept"] is None
    assert os.listdir(scratch) == []
    assert len(listed(fleet)) == 3
    assert fleet.exits() == []
    assert "no deaths since" in ctl("deaths").out

    os.kill(views["one"]["server_pid"], signal.SIGKILL)
    for name in ("one", "two"):
        fleet.await_phase(name, "down")

    def whole() -> list[dict[str, Any]] | None:
        # Either may be seen to be gone before their server is, and that before it is written down.
        told: list[dict[str, Any]] = ctl("--json", "deaths").json()["deaths"]
        ends = [(each["death"] or {}).get("end_cause") for one in told for each in one["agents"]]
        return told if ends == ["server-lost"] * 2 and told[0]["what"] == "server" else None

    (death,) = wait_for("both deaths are with their server's", whole)
    assert (death["signal_name"], death["detected"]) == ("SIGKILL", "live")
    assert [each["identity"] for each in death["agents"]] == ["one", "two"]
    text = ctl("deaths", "two").out
    assert text.count("SIGKILL  ") == 1 and "one, two" in text
    assert "server-lost: one (launch 1), two (launch 1)" in text

    fleet.end()
    os.kill(views["beta"]["server_pid"], signal.SIGKILL)
    wait_for("the canary has recorded it", lambda: len(fleet.exits()) == 2)
    found = wait_for("it waits in the spool", lambda: ctl("--json", "deaths", "beta").json()["deaths"])
    assert [(one["taken_in"], one["signal"]) for one in found] == [(False, 9)]
    assert "live, not taken in yet" in ctl("deaths").out
    assert ctl("canaries").code == 0
    wait_for("it is off the list", lambda: len(listed(fleet)) == 1)

    end_canary(fleet.state)
    gone = ctl("canaries")
    assert gone.code == 1
    assert len(gone.err.splitlines()) == 1
    assert f"no canary runs for {fleet.state}, and 1 tmux server is not watched" in gone.err
    assert "circus_failover.plugins.Canary" in gone.err
    assert [line.split()[2:4] for line in gone.out.splitlines() if line.startswith("tmux/")] == [
        ["not", "armed"]
    ]
    os.kill(views["alpha"]["server_pid"], signal.SIGKILL)
    wait_for("it is seen to be gone", lambda: "gone, not recorded yet" in ctl("canaries").out)
    assert "gone and not recorded yet (of alpha)" in ctl("deaths").out
    own = ctl("drill")
    assert own.code == 0, own
    assert f"none runs for {fleet.state}; the drill used one of its own" in own.out
    assert len(listed(fleet)) == 1
    assert os.listdir(scratch) == []


# -- the list and the canary, without circusd --------------------------------------------------------


def standing(fleet: Fleet) -> StateDir:
    """Make a state directory and a circus.ini that names it."""
    fleet.agent("alpha")
    fleet.write()
    state = StateDir(fleet.state)
    state.prepare()
    return state


def test_without_anything_to_watch_no_canary_is_missed(fleet: Fleet, ctl: Ctl) -> None:
    standing(fleet)
    done = ctl("canaries")
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert "none is needed" in done.err
    answer = ctl("--json", "canaries")
    assert answer.code == 1
    assert (answer.json()["status"], answer.json()["running"], answer.json()["servers"]) == (
        "error",
        False,
        [],
    )


def test_a_canary_that_does_not_answer_is_said_to_be_there(fleet: Fleet, ctl: Ctl, scratch: Path) -> None:
    state = standing(fleet)
    starting.start(str(state.path))
    wait_for("it answers", lambda: asking.ask(str(state.path), ask="status"))
    canary = asking.holder(str(state.path))
    assert canary is not None
    try:
        os.kill(canary.pid, signal.SIGSTOP)
        for verb in ("canaries", "drill"):
            done = ctl(verb)
            assert done.code == 1, done
            assert f"(pid {canary.pid}) does not answer" in done.err
    finally:
        end_canary(state.path)
    assert os.listdir(scratch) == []


class Mute:
    """What answers on a canary's socket and watches nothing."""

    def __init__(self, state: StateDir) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(state.path / watched.SOCKET))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        said = {
            "status": "ok",
            "pid": 1,
            "start": 1,
            "since": time.time(),
            "means": "pidfd",
            "learns": "none",
        }
        said |= {"why": "a test", "servers": [], "deaths": 0, "waiting": 2, "trouble": "no room"}
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(65536)
                    client.sendall(json.dumps(said).encode() + b"\n")

    def close(self) -> None:
        """Answer no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def mute(fleet: Fleet) -> Iterator[Mute]:
    made = Mute(standing(fleet))
    try:
        yield made
    finally:
        made.close()


def test_what_the_canary_cannot_do_is_shown(fleet: Fleet, ctl: Ctl, mute: Mute) -> None:
    me = process_table.identify(os.getpid())
    assert me is not None
    lived = (WatchedAgent("alpha", 1, None, None, None, None),)
    one = Watched("/elsewhere/s", me, process_table.boot_id(), time.time(), False, lived)
    watched.write(str(fleet.state), one)
    done = ctl("canaries")
    assert done.code == 0, done
    assert "how a server ends cannot be learned here: a test" in done.out
    assert "trouble: no room" in done.out
    assert "held in memory: 2" in done.out
    row = next(line.split() for line in done.out.splitlines() if line.startswith("/elsewhere/s"))
    assert row == ["/elsewhere/s", str(os.getpid()), "not", "armed", "-", "alpha"]
    assert "2 more are known to the canary, which cannot write them down yet: no room" in ctl("deaths").out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_drill_that_is_interrupted_leaves_nothing_behind(
    fleet: Fleet, scratch: Path, mute: Mute, number: signal.Signals, code: int
) -> None:
    with started(fleet, "drill") as drill:
        (name,) = wait_for(
            "it waits to be armed", lambda: [name for name in listed(fleet) if name.endswith(".json")]
        )
        server = int(name.partition("-")[0])
        assert alive(server)
        assert mentions(scratch) != []
        drill.send_signal(number)
        assert drill.wait(20) == code
    assert not alive(server)
    assert listed(fleet) == []
    assert os.listdir(scratch) == []
    assert mentions(scratch) == []


def test_a_drill_that_is_interrupted_at_its_beginning_leaves_nothing_behind(
    fleet: Fleet, scratch: Path
) -> None:
    with started(fleet, "drill") as drill:
        wait_for("it has begun", lambda: os.listdir(scratch))
        drill.send_signal(signal.SIGINT)
        assert drill.wait(20) in (130, 0)
    assert os.listdir(scratch) == []
    wait_for("everything it started has ended", lambda: not mentions(scratch))


def heed_signals() -> None:
    """Tests that run in the background of a shell ignore SIGINT, or by nohup SIGHUP, and so would this."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def started(fleet: Fleet, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run failoverctl beside the test; it is ended afterwards in any case."""
    process = subprocess.Popen(
        [str(BIN / "failoverctl"), *arguments],
        env=fleet.environment,
        cwd=fleet.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_signals,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# -- a drill of its own ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["KILL", "sigterm", "SEGV", "ABRT"])
def test_a_drill_needs_no_fleet_and_every_signal_is_recorded_as_it_is(
    fleet: Fleet, ctl: Ctl, scratch: Path, name: str
) -> None:
    keep = name == "KILL"
    done = ctl("--json", "drill", "--signal", name, *(["--keep"] if keep else []))
    assert done.code == 0, done
    told = done.json()
    assert (told["status"], told["wrong"], told["doctor"], told["own_canary"]) == ("ok", [], [], True)
    assert told["state_dir"] is None
    milliseconds = told["milliseconds"]
    assert milliseconds["armed"] >= 0 and 0 < milliseconds["record"] <= milliseconds["snapshot"]
    snapshot = told["snapshot"]
    assert (snapshot["agents"], snapshot["errors"]) == (["drill"], [])
    assert None not in snapshot.values() or not keep
    assert snapshot["processes"] > 1 and snapshot["memory_total_kb"] > snapshot["memory_available_kb"] > 0
    kept = [path.name for path in fleet.folder.glob("*.json")]
    assert kept == ([os.path.basename(snapshot["path"])] if keep else [])
    if keep:
        assert snapshot["kept"] == str(fleet.folder / kept[0])
        assert os.stat(snapshot["kept"]).st_mode & 0o777 == 0o600
    assert not alive(told["canary"]["pid"]) and not alive(told["server"]["pid"])
    assert os.listdir(scratch) == []
    assert mentions(scratch) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("drill", "--signal", "HUP"), 2, "expected one of KILL, TERM, SEGV, ABRT"),
        (("drill", "a", "b"), 2, "takes one circus.ini"),
        (("drill", "nope.ini"), 1, "no such file"),
        (("canaries",), 1, "which fleet?"),
        (("canaries", "nope.ini"), 1, "no such file"),
        (("deaths",), 1, "which fleet?"),
        (("deaths", "--ini", "nope.ini"), 1, "no such file"),
        (("deaths", "--since", "soon"), 2, "--since 'soon'"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_with_its_exit_code(
    fleet: Fleet, ctl: Ctl, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = ctl(*arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1), done
    assert said in done.err


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_names_every_option(fleet: Fleet, ctl: Ctl, verb: str) -> None:
    done = ctl(verb, "--help")
    assert done.code == 0
    assert f"failoverctl {verb}" in done.out
    for option in get_commands()[verb].options:
        assert f"--{option[1]}" in done.out and f"<{option[1]}>" in done.out


def test_a_shell_completes_them(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    assert {"canaries", "drill"} <= set(completion.FILE_VERBS)
    assert completed(fleet, "failoverctl", "deaths", "--s") == ["--since"]
    assert completed(fleet, "failoverctl", "drill", "circus.i") == ["circus.ini"]


# -- what a drill makes of what it finds -------------------------------------------------------------

SERVER = Watched("/tmp/x y/s", ProcessId(7, 70), "boot", 0.0, True, ())


def record(**changes: str) -> dict[str, str]:
    right = {
        "ev": "server-exit",
        "identity": "drill",
        "socket": SERVER.socket,
        "server_pid": "7",
        "signal": "9",
    }
    return {**right, "cause": "killed", "detected": "live", "agents": "drill", "how": "pidfd-info", **changes}


def test_a_right_record_is_right_whatever_signal_was_sent() -> None:
    for number, causes in EXPECTED.items():
        for cause in causes:
            found = record(cause=str(cause), signal=str(int(number)))
            if number == signal.SIGTERM:
                del found["signal"]
                found["status"] = "0"
            assert judge(number, SERVER, found, {}) == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"signal": "15"}, "signal is 15, expected 9"),
        ({"socket": "/other"}, "socket is /other, expected /tmp/x y/s"),
        ({"server_pid": "8"}, "server_pid is 8, expected 7"),
        ({"cause": "crashed"}, "cause is crashed, expected killed or oom-likely"),
        ({"detected": "post-factum"}, "detected is post-factum, expected live"),
        ({"agents": ""}, "agents is missing, expected drill"),
    ],
)
def test_what_is_wrong_in_a_record_is_said(changes: dict[str, str], wrong: str) -> None:
    assert judge(signal.SIGKILL, SERVER, record(**changes), {}) == [wrong]


def test_where_the_kernel_does_not_tell_a_drill_says_why() -> None:
    unknown = record(status="unknown", cause="unknown")
    del unknown["signal"]
    said = judge(signal.SIGKILL, SERVER, unknown, {"why": "Linux 5.10 does not tell"})
    assert said == ["how it ended was not learned: Linux 5.10 does not tell"]


def test_a_record_is_read_as_it_was_written() -> None:
    values = {"a": 'x "y" \\ z', "b": "one\ntwo\x1b\u2028\U0001f600", "c": None, "d": "plain", "e": 1.5}
    found = fields(line(0.0, "x", values))
    assert {key: found[key] for key in values} == {**values, "c": "", "e": "1.5"}


def test_a_snapshot_of_another_server_is_none_of_this_one() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text('{"server": {"pid": 7, "start": 71}}')
        with pytest.raises(ValueError, match="expected"):
            figures(str(path), SERVER.server)
        path.write_text('{"server": {"pid": 7, "start": 70}, "load": {"error": "x"}, "agents": null}')
        told = figures(str(path), SERVER.server)
        assert (told["errors"], told["load"], told["agents"]) == (["load"], None, [])


def test_a_socket_is_shortened_where_people_know_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    state = Path("/home/me/fleet/state")
    assert shortened("/home/me/fleet/state/tmux/a.sock", state) == "tmux/a.sock"
    assert shortened("/home/me/other/s", state) == "~/other/s"
    assert shortened("/home/meander/s", state) == "/home/meander/s"
