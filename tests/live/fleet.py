"""A real fleet in a temporary directory: real circusd, real tmux on private sockets, real agents.

Everything a test starts is ended by pid at its end, and nothing is matched by name: processes are known
because they carry the directory of this very fleet in their environment or command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import zmq
from circus.client import CircusClient
from circus.exc import CallError

from circus_failover import launch_file, process_table, tmux
from circus_failover.canary import watched
from circus_failover.records import LaunchRow
from circus_failover.store import Reader, open_reader
from tests import proc
from tests.live import forked

BIN = Path(sys.executable).parent
STANDIN = f"{sys.executable} -m circus_failover.standin"
RESUME = f"{STANDIN} --resume {{conversation}}"
T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], timeout: float = 20.0) -> T:
    """Return the first true answer of `probe`; fail, saying what was awaited, after `timeout` seconds."""
    until = time.monotonic() + timeout
    last: object = None
    pause = 0.005
    while True:
        try:
            last = probe()
        except (CallError, OSError, KeyError, ValueError, tmux.TmuxError) as error:
            last = error
        else:
            if last:
                return last  # type: ignore[return-value]
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout:g} s: {what} (last: {last!r})")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def remove(folder: Path) -> None:
    """Remove a folder whose processes were killed: one that was just ending may have written there yet."""

    def gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_for(f"{folder} is gone", gone)


def last_words(text: str, status: int) -> str:
    """Return shell commands that print a line and end with a status once tmux has read it."""
    return f"{launch_file.LEAVE}echo {shlex.quote(text)}; failover_leave {status}"


class Fleet:
    """One circus.ini and failover.yaml, the circusd that runs it, and what it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.work = folder / "work"
        self.work.mkdir(mode=0o700)
        self.ini = folder / "circus.ini"
        self.yaml = folder / "failover.yaml"
        self.endpoint = f"ipc://{folder}/ctl"
        self.pubsub = f"ipc://{folder}/pub"
        self.log = folder / "circusd.log"
        self.sections: dict[str, dict[str, str]] = {}
        self.plugins: dict[str, dict[str, str]] = {}
        self.circus: dict[str, str] = {}
        """Further options of [circus]."""
        self.settings: dict[str, Any] = {"state_dir": "state"}
        self.prefix: tuple[str, ...] = ()
        """What circusd's own command line begins with: the network of the real clients."""
        self.circusd: forked.Process | subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            "CIRCUSCTL_ENDPOINT": self.endpoint,
            "FAILOVER_TEST_FLEET": str(folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        for name in ("TMUX", "TMUX_PANE"):
            self.environment.pop(name, None)

    # -- describing -------------------------------------------------------------------------------

    def agent(self, name: str, **options: str) -> None:
        """Add an agent; option names as in circus.ini, with `__` for a dot (`failover__command`)."""
        section = {
            "cmd": "failover-session",
            "hooks.before_start": "circus_failover.hooks.enrol",
            "failover.command": STANDIN,
            "failover.ready_secs": "0.2",
            "failover.stop_secs": "3",
            "working_dir": str(self.work),
        }
        section.update({key.replace("__", "."): value for key, value in options.items()})
        self.sections[f"watcher:{name}"] = {key: value for key, value in section.items() if value != ""}

    def resumable(self, name: str, **options: str) -> None:
        """Add an agent whose conversations can be resumed, once something was said in them."""
        self.agent(name, **{"failover__resume_command": RESUME, **options})

    def watcher(self, name: str, cmd: str, **options: str) -> None:
        """Add a plain watcher, which is no agent."""
        self.sections[f"watcher:{name}"] = {"cmd": cmd, **options}

    def guard(self, **options: str) -> None:
        """Add the plugin that carries out restart policies."""
        self.plugins["plugin:guard"] = {"use": "circus_failover.plugins.CrashLoopGuard", **options}

    def reaper(self, **options: str) -> None:
        """Add the plugin that parks idle agents."""
        self.plugins["plugin:reaper"] = {"use": "circus_failover.plugins.IdleReaper", **options}

    def canary(self, **options: str) -> None:
        """Add the plugin that keeps the canary running."""
        self.plugins["plugin:canary"] = {"use": "circus_failover.plugins.Canary", **options}

    def states(self, **options: str) -> None:
        """Add the plugin that looks at what agents do."""
        self.plugins["plugin:states"] = {"use": "circus_failover.plugins.AgentStates", **options}

    def write(self) -> None:
        """Write circus.ini and failover.yaml as described so far."""
        lines = [
            "[circus]",
            f"endpoint = {self.endpoint}",
            f"pubsub_endpoint = {self.pubsub}",
            "check_delay = 0.5",
            *(f"{key} = {text}" for key, text in self.circus.items()),
            "",
            "[env]",
            "FAILOVER_CONFIG = failover.yaml",
            f"FAILOVER_TEST_FLEET = {self.folder}",
        ]
        for section, options in {**self.sections, **self.plugins}.items():
            lines += ["", f"[{section}]", *(f"{key} = {value}" for key, value in options.items())]
        self.ini.write_text("\n".join(lines) + "\n")
        self.yaml.write_text(json.dumps(self.settings))  # JSON is YAML

    # -- circusd ----------------------------------------------------------------------------------

    def start(self, *, crash_at: str | None = None, wait: bool = True, **environment: str) -> None:
        """Start circusd, and wait until it answers.

        Args:
            crash_at: the crash point at which circusd kills itself.
            wait: return only when it answers.
            environment: variables it gets beside the test's own.
        """
        self.write()
        extra = {**environment, **({"FAILOVER_CRASH_AT": crash_at} if crash_at else {})}
        variables = {**self.environment, **extra}
        with self.log.open("ab") as log:
            if self.prefix:
                self.circusd = subprocess.Popen(
                    [*self.prefix, str(BIN / "circusd"), str(self.ini)],
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=self.folder,
                )
            else:
                file = log.fileno()
                self.circusd = forked.start("circusd", (str(self.ini),), variables, self.folder, file, file)
        if wait:
            wait_for("circusd answers", lambda: self.call("numwatchers", timeout=1.0)["status"] == "ok")

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> int:
        """End circusd with a signal and return how it ended; agents are not touched."""
        assert self.circusd is not None
        self.circusd.send_signal(number)
        status = self.circusd.wait(timeout)
        self.circusd = None
        return status

    def crashed(self, timeout: float = 20.0) -> None:
        """Wait until circusd has killed itself at its crash point."""
        assert self.circusd is not None
        assert self.circusd.wait(timeout) == -signal.SIGKILL
        self.circusd = None

    # -- talking to it ----------------------------------------------------------------------------

    def call(self, command: str, timeout: float = 30.0, **properties: Any) -> dict[str, Any]:
        """Send one message to circusd and return its answer."""
        client = CircusClient(endpoint=self.endpoint, timeout=timeout)
        try:
            answer: dict[str, Any] = client.call({"command": command, "properties": properties})
            return answer
        finally:
            client.stop()

    def call_all(self, *messages: dict[str, Any], timeout: float = 30.0) -> list[dict[str, Any]]:
        """Send messages at once, on one connection, and return their answers in the order of the messages.

        Args:
            messages: each with `command` and what else it says.
            timeout: seconds to wait for all answers; 0 to wait for none, because circusd dies.
        """
        context: zmq.Context[Any] = zmq.Context.instance()
        with context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 5000)
            socket.connect(self.endpoint)
            for number, message in enumerate(messages):
                command, properties = message["command"], {k: v for k, v in message.items() if k != "command"}
                asked = {"command": command, "id": str(number), "properties": properties}
                socket.send(json.dumps(asked).encode())
            answers: dict[int, dict[str, Any]] = {}
            until = time.monotonic() + timeout
            while timeout and len(answers) < len(messages):
                left = max(0, int((until - time.monotonic()) * 1000))
                assert socket.poll(left), f"{len(answers)} of {len(messages)} answers in {timeout:g} s"
                answer = json.loads(socket.recv())
                answers[int(answer["id"])] = answer
            return [answers[number] for number in sorted(answers)]

    def ctl(self, *arguments: str, program: str = "failoverctl", timeout: float = 60.0) -> Result:
        """Run failoverctl (or circusctl) as an operator does."""
        return Result(*forked.run(program, arguments, self.environment, self.folder, timeout))

    def view(self, name: str) -> dict[str, Any]:
        """Return what `fleet` says of one agent."""
        answer = self.call("fleet")
        return next(agent for agent in answer["agents"] if agent["identity"] == name)

    def await_phase(self, name: str, phase: str, timeout: float = 20.0) -> dict[str, Any]:
        """Wait until an agent is in a phase, and return its view."""

        def look() -> dict[str, Any] | None:
            found = self.view(name)
            return found if found["phase"] == phase else None

        return wait_for(f"{name} is {phase}", look, timeout)

    def await_up(self, *names: str) -> list[dict[str, Any]]:
        """Wait until agents are up, each with its keeper, and return their views."""
        views = [self.await_phase(name, "up") for name in names]
        for name in names:
            self.await_watcher(name, "active")
        return views

    def await_watcher(self, name: str, status: str) -> None:
        """Wait until Circus calls a watcher by this status."""
        wait_for(
            f"the watcher {name} is {status}", lambda: self.call("status", name=name)["status"] == status
        )

    def await_ticks(self, number: int = 2) -> None:
        """Wait until the supervisor has ticked so many times more: what a tick would do, it has done."""
        seen = {self.call("fleet")["circusd"]["last_tick"]}

        def look() -> bool:
            seen.add(self.call("fleet")["circusd"]["last_tick"])
            return len(seen) > number

        wait_for(f"{number} more ticks", look)

    def keeper(self, name: str) -> int:
        """Return the pid of an agent's keeper."""
        (pid,) = self.call("list", name=name)["pids"]
        return int(pid)

    @contextlib.contextmanager
    def store(self) -> Iterator[Reader]:
        """Read the store beside circusd."""
        reader = open_reader(self.state / "failover.db")
        try:
            yield reader
        finally:
            reader.close()

    def launches(self, name: str) -> list[LaunchRow]:
        """Return an agent's launches, the newest first."""
        with self.store() as store:
            return store.launches(name)

    def begun(self, name: str) -> LaunchRow:
        """Wait until an agent is up, and return how that launch began.

        Asserts that store, log and the agent's own environment say the same, and that the log said it first.
        """
        (view,) = self.await_up(name)
        launch = self.launches(name)[0]
        assert launch.generation == view["generation"]
        of_it = (name, str(launch.generation))
        lines = [line for line in self.lifecycle() if (line.get("identity"), line.get("generation")) == of_it]
        events = [line["ev"] for line in lines if line.get("mode") not in ("refused", "failed")]
        assert events.index("wake") < events.index("launch")
        wake = [line for line in lines if line["ev"] == "wake" and line["mode"] in ("fresh", "resume")][-1]
        logged = (wake["mode"], wake["cause"], wake["conversation"], wake["parked_by"] or None)
        assert logged == (launch.mode, launch.wake_cause, launch.conversation, launch.parked_by)
        told = f"FAILOVER_CONVERSATION={launch.conversation}".encode()
        # The shell that becomes the agent has the agent's pid, and none of its variables yet.
        wait_for(f"{name} is told {told!r}", lambda: told in (process_table.environ(view["pid"]) or ()))
        return launch

    def lifecycle(self) -> list[dict[str, str]]:
        """Return the records of lifecycle.log, as mappings."""
        path = self.state / "lifecycle.log"
        return [parse_logfmt(line) for line in path.read_text().splitlines()] if path.exists() else []

    def exits(self) -> list[dict[str, str]]:
        """Return the records of exits.log, as mappings."""
        path = self.state / "exits.log"
        return [parse_logfmt(line) for line in path.read_text().splitlines()] if path.exists() else []

    # -- tmux -------------------------------------------------------------------------------------

    def socket(self, name: str) -> Path:
        """Return the socket of an agent's own tmux server."""
        return self.state / "tmux" / f"{name}.sock"

    def screen(self, name: str) -> str:
        """Return what an agent's terminal shows."""
        panes = tmux.panes(self.socket(name), name)
        return tmux.capture(self.socket(name), panes[0].pane) if panes else ""

    def type(self, name: str, text: str) -> None:
        """Type a line into an agent's terminal."""
        pane = tmux.panes(self.socket(name), name)[0].pane
        tmux.run(self.socket(name), ["send-keys", "-t", pane, "-l", text])
        tmux.run(self.socket(name), ["send-keys", "-t", pane, "Enter"])

    def await_screen(self, name: str, text: str) -> str:
        """Wait until an agent's terminal shows a text."""
        return wait_for(f"{name} shows {text!r}", lambda: (s := self.screen(name)) and text in s and s)

    def converse(self, name: str, text: str = "hello") -> None:
        """Say something to a stand-in and wait for its answer: from then on there is a transcript."""
        self.await_screen(name, "standin ready")
        self.type(name, text)
        self.await_screen(name, f"done: {text}")

    def prompts(self, conversation: str | None) -> list[str]:
        """Return what a stand-in was told in a conversation, in order."""
        found = list(self.work.glob(f".standin/projects/*/{conversation}.jsonl"))
        entries = [json.loads(line) for path in found for line in path.read_text().splitlines()]
        return [entry["message"]["content"] for entry in entries if entry["type"] == "user"]

    def tmux(self, socket: Path, *arguments: str) -> str:
        """Run tmux as a person does who knows nothing of us, and return what it prints."""
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if socket.parent == self.state / "tmux":
            self.state.chmod(0o700)
        return subprocess.run(
            ["tmux", "-S", str(socket), *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout

    def by_hand(self, socket: Path, session: str, command: str = STANDIN) -> int:
        """Start a session as an operator does by hand, and return the pid of what runs in it."""
        self.tmux(socket, "new-session", "-d", "-x", "150", "-y", "40", "-s", session, command)
        return int(self.tmux(socket, "list-panes", "-s", "-t", f"={session}", "-F", "#{pane_pid}"))

    # -- the end ----------------------------------------------------------------------------------

    def processes(self) -> list[process_table.ProcessId]:
        """Return every process that belongs to this fleet, by what it carries."""
        mark = f"FAILOVER_TEST_FLEET={self.folder}".encode()
        folder = str(self.folder).encode()
        found = []
        for pid, stat in process_table.table().items():
            if pid == os.getpid() or stat.run_state in "ZX":
                continue
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                environment = process_table.environ(pid) or frozenset()
                if mark in environment or folder + b"/" in line:
                    found.append(stat.id)
        return found

    def running(self, word: bytes) -> list[int]:
        """Return the pids of this fleet's processes that have a word on their command line."""
        return [one.pid for one in self.processes() if word in proc.command_line(one.pid)]

    def close(self) -> None:
        """End everything this fleet started, circusd first, so that nothing comes back."""
        if self.circusd is not None:
            self.circusd.kill()
            self.circusd.wait()
            self.circusd = None

        def ended() -> bool:
            left = self.processes()
            for process in left:
                process_table.send(process, signal.SIGKILL)
            # A canary that was just detaching itself, from parent to child, may have slipped past that look.
            return not left and not self._canary_lives()

        wait_for("every process of the fleet has ended", ended)

    def _canary_lives(self) -> bool:
        """Say whether somebody holds the canary's lock, or is about to become the one who does."""
        try:
            with open(self.state / watched.LOCK) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class Events:
    """What circusd publishes, from the moment this is there; used as a context."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def __enter__(self) -> Events:
        """Subscribe, and wait until circusd knows of it (a publisher drops what nobody has asked for)."""
        monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(self._fleet.pubsub)
        assert monitor.poll(10000), "circusd's event stream was not reached"
        self._socket.disable_monitor()
        self._fleet.call("numwatchers")
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close(0)
        self._context.term()

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Return everything that was published so far, as (topic, message)."""
        while self._socket.poll(0):
            topic, message = self._socket.recv_multipart()
            self.seen.append((topic.decode(), json.loads(message)))
        return self.seen

    def of(self, topic: str) -> list[dict[str, Any]]:
        """Return the messages of one topic that were published so far."""
        return [message for name, message in self.take() if name == topic]

    def await_one(
        self, topic: str, wanted: Callable[[dict[str, Any]], bool] = lambda message: True
    ) -> dict[str, Any]:
        """Wait for a message of a topic that `wanted` accepts."""
        return wait_for(
            f"the event {topic}", lambda: next((one for one in self.of(topic) if wanted(one)), None)
        )


class Result:
    """How a command line ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> dict[str, Any]:
        """Return its standard output as JSON."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}{self.err}"


def parse_logfmt(line: str) -> dict[str, str]:
    """Read one logfmt line, as an operator's tool would."""
    import re

    record = {}
    for match in re.finditer(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)', line):
        value = match[2]
        record[match[1]] = (
            json.loads(re.sub(r"\\x(..)", r"\\u00\1", value)) if value.startswith('"') else value
        )
    return record


def alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    stat = process_table.read(pid)
    return stat is not None and stat.run_state not in "ZX"
