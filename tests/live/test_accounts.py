"""What an account gives its agents and nobody else, and what an agent's environment never holds."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from circus_failover import process_table
from circus_failover.agents import RUNTIMES
from circus_failover.canary import watched
from tests import proc
from tests.clients.accounts import make_claude_home
from tests.live.fleet import Fleet, wait_for

SECRET = "sk-Marker-0123456789"


def account(fleet: Fleet, content: str, mode: int = 0o600) -> Path:
    """Give the fleet an account with an env_file, and return that file."""
    (fleet.folder / "shared" / "projects").mkdir(parents=True)
    home = fleet.folder / "homes" / "main"
    home.mkdir(parents=True)
    (home / "projects").symlink_to(fleet.folder / "shared" / "projects")
    fleet.settings["shared"] = {"root": "shared", "links": ["projects"]}
    fleet.settings["accounts"] = [{"name": "main", "home": "homes/main", "env_file": "main.env"}]
    path = fleet.folder / "main.env"
    path.write_text(content)
    path.chmod(mode)
    return path


def environment(pid: int) -> set[str]:
    return {entry.decode(errors="replace") for entry in process_table.environ(pid) or ()}


def told(fleet: Fleet, *names: str) -> str:
    """Return all that anybody could read of a fleet but for its env_file: files, command lines, answers."""
    found = [fleet.log.read_text()]
    for folder, _, files in os.walk(fleet.state):
        for name in files:
            with contextlib.suppress(OSError):  # a socket
                found.append(f"{name}\n{Path(folder, name).read_bytes().decode(errors='replace')}")
    for pid in process_table.table():
        found.append(proc.command_line(pid).decode(errors="replace"))
    for name in names:
        for verb in ("options", "stats", "explain", "history"):
            found.append(repr(fleet.call(verb, name=name)))
        with contextlib.suppress(Exception):  # its server may be gone
            found.append(fleet.tmux(fleet.socket(name), "show-environment"))
            found.append(fleet.tmux(fleet.socket(name), "show-environment", "-g"))
            found.append(fleet.screen(name))
    found.append(repr(fleet.call("fleet")))
    return "\n".join(found)


def carrying(fleet: Fleet) -> set[int]:
    """Return the processes of a fleet that have the secret in their environment."""
    return {
        process.pid for process in fleet.processes() if any(SECRET in one for one in environment(process.pid))
    }


def test_a_secret_is_with_its_agent_alone_while_it_is_up_after_failed_launches_and_after_its_death(
    fleet: Fleet,
) -> None:
    path = account(fleet, f"TOKEN={SECRET}\nexport QUOTED='{SECRET} $HOME'\n")
    fleet.agent("alpha", failover__account="main")
    lost = {"failover__command": "no-such-program", "failover__ready_secs": "60"}
    fleet.agent("lost", failover__account="main", autostart="False", **lost)
    fleet.agent("plain")
    fleet.canary(interval="0.2")

    # A launch that circusd's death interrupts has its script on disk, for its owner alone.
    fleet.start(crash_at="launch-recorded", wait=False)
    fleet.crashed()
    (script,) = (fleet.state / "run").glob("*.launch")
    assert SECRET in script.read_text() and script.stat().st_mode & 0o077 == 0
    path.chmod(0o640)
    fleet.start()
    refused = fleet.await_phase("alpha", "refused")
    assert (refused["cause"], refused["pid"]) == ("account", None)
    home = fleet.folder / "homes" / "main"
    assert refused["reason"].startswith(f"account main ({home}): env_file {path}: found mode 0640, expected")
    assert refused["reason"].endswith(f"chmod 600 {path}")
    fleet.await_up("plain")
    judged = [fleet.ctl(*verb).out for verb in (["validate"], ["doctor"], ["doctor", "--account", "main"])]
    assert all("found mode 0640" in text for text in judged)
    assert SECRET not in told(fleet, "alpha", "plain") + "".join(judged)

    # Mended, it is launched at the next start; interrupted once more, it leaves nothing behind either.
    path.chmod(0o600)
    fleet.end()
    fleet.start(crash_at="launch-recorded", wait=False)
    fleet.crashed()
    (script,) = (fleet.state / "run").glob("*.launch")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    assert view["generation"] == 3 and not script.exists()
    fleet.await_screen("alpha", "standin ready")  # the shell that becomes it has none of its variables yet
    assert {f"TOKEN={SECRET}", f"QUOTED={SECRET} $HOME", f"FAILOVER_HOME={home}"} <= environment(view["pid"])
    wait_for("it alone carries it", lambda: carrying(fleet) == {view["pid"]})
    failed = fleet.ctl("start", "lost")
    assert failed.code == 3 and "no-such-program" in failed.err
    assert SECRET not in told(fleet, "alpha", "lost", "plain") + failed.err
    assert list((fleet.state / "run").glob("*.launch")) == []

    os.kill(view["server_pid"], signal.SIGKILL)
    fleet.await_phase("alpha", "down")
    snapshots = fleet.state / watched.FORENSICS
    wait_for("a snapshot", lambda: any("alpha" in one.read_text() for one in snapshots.glob("*.json")))
    assert SECRET not in told(fleet, "alpha", "lost")
    # A value that is broken is not told either, and what lives is adopted whatever the file says.
    assert fleet.ctl("start", "alpha").code == 0
    (view,) = fleet.await_up("alpha")
    path.write_text(f"TOKEN={SECRET} {SECRET}\n")
    fleet.end(signal.SIGKILL)
    fleet.start()
    fleet.await_up("alpha")
    adopted = fleet.view("alpha")  # up it is from the first moment on, and what is found of it comes later
    assert adopted["pid"] == view["pid"]
    assert f"env_file {path}:1: found a line that cannot be used" in adopted["reason"]
    assert SECRET not in told(fleet, "alpha", "lost")


def test_a_home_in_which_a_client_could_not_work_refuses_and_mended_it_is_launched(fleet: Fleet) -> None:
    made = make_claude_home(fleet.folder / "homes" / "main", "main", "http://127.0.0.1:9", [], auth="none")
    made.link(fleet.folder / "shared", ["projects"])
    fleet.settings["shared"] = {"root": "shared", "links": ["projects"]}
    fleet.settings["accounts"] = [{"name": "main", "runtime": "claude", "home": str(made.folder)}]
    options = {"failover__runtime": "claude", "failover__account": "main", "failover__command": "claude"}
    fleet.agent("alpha", **options)
    fleet.start()
    refused = fleet.await_phase("alpha", "refused")
    assert refused["cause"] == "account"
    for part in (f"account main ({made.folder}): ", "login: found", "trust: found", str(fleet.work)):
        assert part in refused["reason"]
    assert fleet.call("start", name="alpha", waiting=True)["reason"].endswith(refused["reason"])

    def would() -> str:
        return str(fleet.call("explain", name="alpha")["start_would"]["action"])

    assert would() == "refuse"
    made.change(".claude.json", projects={str(fleet.work): {"hasTrustDialogAccepted": True}})
    assert would() == "refuse"
    spare = make_claude_home(fleet.folder / "spare", "spare", "http://127.0.0.1:9", [])
    (spare.folder / ".credentials.json").rename(made.folder / ".credentials.json")
    assert would() == "launch"


def test_an_agent_s_environment_is_clean_whatever_circusd_was_started_from(fleet: Fleet) -> None:
    """Also with `copy_env`, by which Circus hands on all that circusd has."""
    patterns = [pattern for runtime in RUNTIMES.values() for pattern in runtime.surrounding]
    foreign = {pattern.replace("*", "X"): "theirs" for pattern in patterns}
    foreign |= {"TMUX": "/gone,1,0", "TMUX_PANE": "%99", "TERM": "of-circusd", "FAILOVER_HOME": "/theirs"}
    foreign |= {"FAILOVER_IDENTITY": "eve", "FAILOVER_GENERATION": "99", "FAILOVER_LAUNCH": "theirs"}
    deliberate = "CLAUDECODE" if "CLAUDECODE" in foreign else "TERM"
    fleet.agent("alpha")
    fleet.agent("copies", copy_env="True")
    fleet.sections["env:copies"] = {deliberate: "mine", "HOME": str(fleet.folder)}
    fleet.start(**foreign, PLAIN="copied")
    alpha, copies = fleet.await_up("alpha", "copies")
    for name in ("alpha", "copies"):
        fleet.await_screen(name, "standin ready")  # the shell that becomes it has none of its variables yet

    for name, view in (("alpha", alpha), ("copies", copies)):
        has = environment(view["pid"])
        assert {f"FAILOVER_IDENTITY={name}", "FAILOVER_GENERATION=1"} <= has
        own = {f"{deliberate}=mine"} if name == "copies" else set()
        theirs = {f"{variable}={value}" for variable, value in foreign.items()}
        assert not has & theirs
        assert own <= has
        assert [one for one in has if one.startswith("TMUX=")] == [
            f"TMUX={fleet.socket(name)},{view['server_pid']},0"
        ]
        # Nor does anything of it reach the keeper, or the server that other sessions may be made in.
        for pid in (fleet.keeper(name), view["server_pid"]):
            assert not environment(pid) & (theirs - {"FAILOVER_GENERATION=1"})
            assert "PLAIN=copied" not in environment(pid)
    assert "PLAIN=copied" in environment(copies["pid"])
    assert "PLAIN=copied" not in environment(alpha["pid"])
    assert f"HOME={fleet.folder}" in environment(copies["pid"])
