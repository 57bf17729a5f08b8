"""failoverctl beside a running fleet: attach, completion, and errors that are one line."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circus_failover import process_table, tmux
from tests.live.fleet import BIN, STANDIN, Fleet, wait_for


def attach(fleet: Fleet, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Run attach on a terminal of its own; the caller ends it and closes the descriptor."""
    ours, theirs = pty.openpty()
    environment = {**fleet.environment, "TERM": "xterm", "TMUX": "/tmp/outer,1,0", "TMUX_PANE": "%0"}
    client = subprocess.Popen(
        [str(BIN / "failoverctl"), "attach", *arguments],
        env=environment,
        cwd=fleet.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return client, ours


def clients(fleet: Fleet, name: str) -> list[str]:
    form = "#{client_pid} #{client_session} #{client_readonly}"
    return tmux.run(fleet.socket(name), ["list-clients", "-F", form]).splitlines()


@pytest.mark.parametrize(("options", "read_only"), [((), "0"), (("--read-only",), "1")])
def test_attach_becomes_a_client_of_that_very_session(
    fleet: Fleet, options: tuple[str, ...], read_only: str
) -> None:
    fleet.agent("bob")
    fleet.agent("bob2")
    fleet.start()
    fleet.await_up("bob", "bob2")
    client, terminal = attach(fleet, "bob", *options)
    try:
        found = wait_for("bob has a client", lambda: clients(fleet, "bob"))
        assert found == [f"{client.pid} bob {read_only}"]
        assert clients(fleet, "bob2") == []
        carried = process_table.environ(client.pid) or frozenset()
        assert not {entry for entry in carried if entry.startswith(b"TMUX")}
    finally:
        client.kill()
        client.wait()
        os.close(terminal)
    fleet.await_up("bob")


def test_who_waits_for_an_answer_is_told_when_circusd_is_gone(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="60")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(fleet.ctl, "stop", "bob", "--waiting")
        fleet.await_phase("bob", "stopping")
        fleet.end(signal.SIGKILL)
        told = waiting.result()
    assert told.code == 1 and "went away" in told.err, told


def test_attach_says_in_one_line_why_it_cannot(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    fleet.watcher("plain", "sleep 1000")
    fleet.start()
    fleet.await_up("alpha")
    for arguments, said in (
        (["alpa"], "did you mean 'alpha'"),
        (["plain"], "is a watcher but no agent"),
        (["beta"], "beta is not running, it is down"),
        (["alpha"], "attach needs a terminal"),
    ):
        done = fleet.ctl("attach", *arguments)
        assert (done.code, done.out) == (3, ""), done
        assert said in done.err
        assert len(done.err.splitlines()) == 1
    answer = fleet.ctl("--json", "attach", "alpha").json()
    assert answer["argv"][1:] == ["-S", str(fleet.socket("alpha")), "attach-session", "-t", "=alpha"]


def test_attach_finds_an_agent_in_the_store_while_circusd_is_down(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    fleet.start()
    fleet.await_up("alpha")
    fleet.end()
    lost = fleet.ctl("attach", "alpha")
    assert lost.code == 1
    assert "--ini" in lost.err
    found = fleet.ctl("--json", "attach", "alpha", "--ini", str(fleet.ini))
    assert found.code == 0
    assert found.json()["socket"] == str(fleet.socket("alpha"))
    for name, said in (("beta", "not running"), ("nobody", "no agent 'nobody'")):
        done = fleet.ctl("attach", name, "--ini", str(fleet.ini))
        assert done.code == 3, done
        assert said in done.err
    tmux.run(fleet.socket("alpha"), ["kill-server"])
    wait_for("the server is gone", lambda: tmux.serves(fleet.socket("alpha")) is False)
    assert fleet.ctl("--json", "attach", "alpha", "--ini", str(fleet.ini)).code == 3


def completed(fleet: Fleet, *words: str) -> list[str]:
    """Complete the last word in a real bash, as readline would ask for it."""
    line = " ".join(shlex.quote(word) for word in words)
    text = (
        'eval "$(failoverctl completion bash)"\n'
        f"COMP_WORDS=({line})\nCOMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n"
        '_failoverctl\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", text],
        env=fleet.environment,
        cwd=fleet.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [word for word in done.stdout.splitlines() if word]


def test_bash_completes_verbs_options_names_and_files(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("alfred", autostart="False")
    fleet.start()
    fleet.await_up("alpha")
    assert completed(fleet, "failoverctl", "expl") == ["explain"]
    assert completed(fleet, "failoverctl", "--js") == ["--json"]
    assert completed(fleet, "failoverctl", "explain", "al") == ["alfred", "alpha"]
    assert completed(fleet, "failoverctl", "attach", "--r") == ["--read-only"]
    assert completed(fleet, "failoverctl", "--json", "stop", "alf") == ["alfred"]
    assert completed(fleet, "failoverctl", "validate", "circus.i") == ["circus.ini"]
    assert completed(fleet, "failoverctl", "completion", "z") == ["zsh"]
    fleet.environment["CIRCUSCTL_ENDPOINT"] = f"ipc://{fleet.folder}/nobody"
    assert completed(fleet, "failoverctl", "explain", "al") == []
    assert completed(fleet, "failoverctl", "--endpoint", fleet.endpoint, "explain", "al") != []


def test_validate_and_doctor_are_the_same_offline_as_beside_circusd(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    before = fleet.ctl("--json", "validate").out
    fleet.start()
    fleet.await_up("alpha")
    assert fleet.ctl("--json", "validate").out == before
    assert Path(fleet.state / "failover.db").exists()
