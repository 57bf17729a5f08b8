"""The example fleet is right as it stands, and the demo shows it and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from circus_failover import agent_settings, fleet_file, plugins, process_table, settings, shared_state
from circus_failover.agent_settings import PREFIX
from circus_failover.validation import validate

ROOT = Path(__file__).resolve().parent.parent
INI = ROOT / "circus.ini.example"
YAML = ROOT / "failover.yaml.example"
AGENTS = ("builder", "reviewer", "scout", "writer")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A HOME of its own, with a path short enough for sockets: the example keeps everything below it."""
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/tmp") as folder:
        monkeypatch.setenv("HOME", folder)
        monkeypatch.delenv("FAILOVER_CONFIG", raising=False)
        yield Path(folder)


def test_it_is_refused_until_its_links_are_made_and_accepted_then(home: Path) -> None:
    before = validate(INI)
    assert before.problems == ()
    assert before.failures
    assert before.accepted == ()
    for found in before.settings:
        shared_state.create(found)
    after = validate(INI)
    assert after.ok
    assert sorted(after.accepted) == list(AGENTS)


def test_everything_it_makes_is_below_home(home: Path) -> None:
    found = settings.load(YAML)
    places = [found.state_dir, found.shared.root, *(account.home for account in found.accounts)]
    assert all(place is not None and home in place.parents for place in places)
    fleet = fleet_file.read(INI)
    for endpoint in (fleet.endpoint, fleet.pubsub_endpoint):
        assert endpoint.startswith(f"ipc://{found.state_dir}/"), "reachable by its owner alone"


def test_what_is_commented_out_is_right_too(home: Path) -> None:
    text = INI.read_text()
    begin = text.index("# [watcher:night-shift]")
    more = re.sub(r"(?m)^# ?", "", text[begin:])
    (home / "failover.yaml.example").write_text(YAML.read_text())
    ini = home / "circus.ini"
    ini.write_text(text[:begin] + more)
    for found in validate(ini).settings:
        shared_state.create(found)
    report = validate(ini)
    assert report.ok, report
    assert sorted(report.accepted) == sorted([*AGENTS, "night-shift", "coder", "by-hand"])


def test_the_agents_differ_in_their_options(home: Path) -> None:
    used = [
        {key for key in agent if key.startswith(PREFIX)} | ({"working_dir"} & set(agent))
        for agent in fleet_file.read(INI).agents
    ]
    assert len({frozenset(options) for options in used}) == len(AGENTS)


def test_it_has_all_plugins_and_an_agent_that_comes_back_and_is_resumed(home: Path) -> None:
    fleet = fleet_file.read(INI)
    used = re.findall(r"(?m)^#? ?use = (circus_failover\.plugins\.\w+)$", INI.read_text())
    assert sorted(used) == [f"circus_failover.plugins.{name}" for name in sorted(plugins.__all__)]
    always = [agent for agent in fleet.agents if agent.get("failover.restart") == "always"]
    assert [agent["name"] for agent in always if "failover.resume_command" in agent] == ["writer"]


def test_every_option_and_every_key_is_shown_somewhere(home: Path) -> None:
    text = INI.read_text()
    defaults = settings.load(YAML).defaults
    missing = [
        option
        for option in agent_settings.OPTIONS
        if not re.search(rf"(?m)^#? ?failover\.{option} = ", text) and option not in defaults
    ]
    assert missing == []
    for key in settings._Document.model_fields:
        assert re.search(rf"(?m)^{key}:", YAML.read_text()), key


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, in a session of its own; ended with SIGKILL when the test leaves it running."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def assert_nothing_is_left(shown: str) -> None:
    (home,) = set(re.findall(r"with (\S+) as its home", shown))
    assert not os.path.exists(home)
    mark = f"HOME={home}".encode()
    left = [pid for pid in process_table.table() if mark in (process_table.environ(pid) or ())]
    assert left == []


def test_the_demo_shows_what_was_stopped_and_what_was_killed_and_clears_up() -> None:
    with demo("--once") as process:
        shown, _ = process.communicate(timeout=100)
        assert process.returncode == 0, shown
    assert re.search(r"^reviewer +stopped .* operator-stop ", shown, re.MULTILINE), shown
    assert re.search(r"^scout +down .* signaled ", shown, re.MULTILINE), shown
    assert "ev=stop identity=reviewer" in shown
    assert "ev=exit identity=scout" in shown
    assert_nothing_is_left(shown)


@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [
        ("Starting circusd", signal.SIGTERM, 128 + signal.SIGTERM),
        ("is stopped by an operator", signal.SIGHUP, 128 + signal.SIGHUP),
        ("Ctrl-C here", signal.SIGINT, 0),
    ],
)
def test_the_demo_clears_up_whenever_it_is_ended(moment: str, number: signal.Signals, status: int) -> None:
    lines = []
    with demo() as process:
        assert process.stdout is not None
        watchdog = threading.Timer(90, process.kill)
        watchdog.start()
        for line in process.stdout:
            lines.append(line)
            if moment in line:
                process.send_signal(number)
        process.wait()
        watchdog.cancel()
    shown = "".join(lines)
    assert process.returncode == status, shown
    assert_nothing_is_left(shown)


def test_ctrl_c_on_a_terminal_shows_no_traceback_and_gives_the_cursor_back() -> None:
    """A terminal sends it to all that runs in its foreground, also to a failoverctl that hides the cursor."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(ROOT / "scripts" / "demo.py")])
    watchdog = threading.Timer(90, os.kill, (pid, signal.SIGKILL))
    watchdog.start()
    shown, pressed = b"", False
    with contextlib.suppress(OSError):  # EIO: the last of it has ended
        while chunk := os.read(terminal, 65536):
            shown += chunk
            if not pressed and b"stop: waiting" in shown:
                pressed = True
                os.write(terminal, b"\x03")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    watchdog.cancel()
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert b"Traceback" not in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") > 0, shown
    assert_nothing_is_left(re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()))
