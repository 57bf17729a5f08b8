"""The harness itself: installed once, off every network, and a mock that fails for whom it is told to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clients import install
from tests.clients.conftest import obtain
from tests.clients.faults import Fault
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
# Stands in for npm: makes what an installation has, and notes that it was called.
NPM = """#!/bin/sh
echo called >>"$NPM_CALLS"
[ -z "$NPM_GATE" ] || cat "$NPM_GATE"
[ -z "$NPM_FAILS" ] || { echo "npm error: $NPM_FAILS" >&2; exit 1; }
mkdir -p node_modules/.bin node_modules/@openai/codex-any/vendor/any/bin
for name in claude codex; do
  printf '#!/bin/sh\\ncat "$(dirname "$0")/../../package.json"\\n' >node_modules/.bin/$name
  chmod +x node_modules/.bin/$name
done
cp node_modules/.bin/codex node_modules/@openai/codex-any/vendor/any/bin/codex
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache and an npm that only pretends; its calls are in the file `calls`."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "npm").write_text(NPM)
    (tools / "npm").chmod(0o755)
    for name in ("cat", "chmod", "cp", "dirname", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CALLS", str(tmp_path / "calls"))
    return tmp_path


def calls(machine: Path) -> int:
    """Return how often npm was called."""
    return len((machine / "calls").read_text().split()) if (machine / "calls").exists() else 0


def test_workers_that_come_at_the_same_time_install_once(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = machine / "gate"
    os.mkfifo(gate)
    monkeypatch.setenv("NPM_GATE", str(gate))

    def worker() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "tests.clients.install"], cwd=ROOT)

    workers = [worker()]
    try:
        wait_for("the first installs", lambda: calls(machine) == 1)
        workers.append(worker())
        lock, late = str(install.folder().parent / "install.lock"), psutil.Process(workers[1].pid)
        wait_for("the second has come", lambda: lock in {one.path for one in late.open_files()})
        gate.write_text("go on\n")
        assert [one.wait(60) for one in workers] == [0, 0]
    finally:
        for one in workers:
            one.kill()
            one.wait()
    assert calls(machine) == 1
    found = install.ensure()
    assert found.folder.is_relative_to(machine / "cache") and found.codex_native.exists()
    assert calls(machine) == 1
    assert {path.name for path in found.folder.parent.iterdir()} == {found.folder.name, "install.lock"}


def test_an_installation_that_failed_leaves_nothing_and_is_not_tried_again_by_every_worker(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_FAILS", "no network")
    for _ in range(2):
        with pytest.raises(install.NotInstalled, match="no network"):
            install.ensure()
    assert calls(machine) == 1 and install.find() is None
    monkeypatch.delenv("NPM_FAILS")
    assert install.ensure(again=True).claude.exists()
    assert not list((machine / "cache").rglob("*.failed"))


def test_without_the_clients_a_test_is_skipped_and_says_why_unless_they_are_required(machine: Path) -> None:
    (machine / "bin" / "npm").unlink()
    with pytest.raises(pytest.skip.Exception, match="npm is not installed"):
        obtain("")
    with pytest.raises(pytest.fail.Exception, match="FAILOVER_CLIENTS=require: npm is not installed"):
        obtain("require")
    with pytest.raises(pytest.fail.Exception, match="FAILOVER_CLIENTS=always: expected require, skip"):
        obtain("always")


def test_tests_with_clients_can_be_left_out(machine: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="FAILOVER_CLIENTS=skip"):
        obtain("skip")
    assert calls(machine) == 0


def test_clients_have_their_own_network_with_nothing_but_the_mock(network: Network, mock: Mock) -> None:
    if not network.isolated:
        pytest.skip("a network namespace cannot be made here (Linux, root)")
    script = (
        "import json, socket, sys, urllib.request\n"
        "print(json.load(urllib.request.urlopen(sys.argv[1] + '/control'))['everybody'])\n"
        "print([name for _, name in socket.if_nameindex()])\n"
        # RFC 5737: an address that is nobody's.
        "try: socket.create_connection(('192.0.2.1', 443), 10)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    mock.fail(Fault.OVERLOADED)
    done = subprocess.run(
        [*network.prefix, sys.executable, "-c", script, mock.url], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["overloaded", "['lo']", "Network is unreachable"], done.stderr


# -- the mock -------------------------------------------------------------------------------------


@pytest.fixture
def alone() -> Iterator[Mock]:
    """A mock on this process's own loopback."""
    made = Mock(socket.create_server(("127.0.0.1", 0)))
    try:
        yield made
    finally:
        made.close()


def ask(mock: Mock, key: str, *prompts: str, model: str = "any") -> tuple[int, Any]:
    """Ask as Claude Code does, without a stream."""
    messages = [{"role": "user", "content": prompt} for prompt in prompts]
    body = json.dumps({"model": model, "messages": messages, "tools": [{"name": "Bash"}]}).encode()
    request = urllib.request.Request(f"{mock.url}/v1/messages", body, {"x-api-key": key})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["content"][0]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["type"]


def control(mock: Mock, query: str) -> Any:
    """Ask for something as another process does."""
    with urllib.request.urlopen(f"{mock.url}/control?{query}", timeout=60) as answer:
        return json.load(answer)


def test_an_answer_says_what_was_said_before_and_a_tool_is_called_when_a_prompt_wants_one(
    alone: Mock,
) -> None:
    said = "<system-reminder>not typed</system-reminder>remember PAPAYA"
    assert ask(alone, "a", said, "go  on") == (
        200,
        {"type": "text", "text": "heard: go on; before: remember PAPAYA"},
    )
    code, block = ask(alone, "a", "do [[bash echo hi]]")
    assert (code, block["name"], block["input"]["command"]) == (200, "Bash", "echo hi")
    assert [one.prompts for one in alone.asked("a")] == [("remember PAPAYA", "go on"), ("do",)]


def test_a_fault_is_one_accounts_or_everybodys_until_it_is_taken_back(alone: Mock) -> None:
    alone.fail(Fault.LIMIT_5H, "a")
    assert (ask(alone, "a", "hi")[0], ask(alone, "b", "hi")[0]) == (429, 200)
    alone.fail(Fault.OVERLOADED)
    assert (ask(alone, "a", "hi")[0], ask(alone, "b", "hi")[0]) == (529, 529)
    alone.heal("b")
    assert (ask(alone, "a", "hi")[0], ask(alone, "b", "hi")[0]) == (529, 200)
    alone.heal()
    assert ask(alone, "a", "hi")[0] == 200
    alone.fail(Fault.LIMIT_OPUS)
    assert [ask(alone, "a", "hi", model=model)[0] for model in ("claude-opus-5", "claude-sonnet-5")] == [
        429,
        200,
    ]


def test_another_process_sets_and_takes_back_faults(alone: Mock) -> None:
    assert control(alone, "fault=unauthorized&key=a")["by_key"] == {"a": "unauthorized"}
    assert (ask(alone, "a", "hi"), ask(alone, "b", "hi")[0]) == ((401, "authentication_error"), 200)
    assert control(alone, "fault=none")["by_key"] == {}
    with pytest.raises(urllib.error.HTTPError):
        control(alone, "fault=no-such-fault")


def test_a_request_that_is_cut_gets_no_answer_and_one_that_hangs_is_answered_when_healed(alone: Mock) -> None:
    alone.fail(Fault.CUT)
    with pytest.raises(OSError, match="reset"):
        ask(alone, "a", "hi")
    alone.fail(Fault.HANG)
    script = "import sys, urllib.request as u; print(u.urlopen(u.Request(*sys.argv[1:2], b'{}')).status)"
    waiting = subprocess.Popen(
        [sys.executable, "-c", script, f"{alone.url}/v1/messages"], stdout=subprocess.PIPE, text=True
    )
    wait_for("it has asked", lambda: len(alone.requests()) == 2)
    assert waiting.poll() is None
    alone.heal()
    assert waiting.communicate(timeout=60)[0] == "200\n"
