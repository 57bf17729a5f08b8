"""The gate, live: a launch is refused with one reason in every place, and nothing fails open."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.fleet import Events, Fleet, alive, wait_for

BOTH = ("one", "two")


def accounts(fleet: Fleet, *, strict: bool = True) -> None:
    """Give the fleet two accounts that share `projects`, all in order."""
    shared = fleet.folder / "shared"
    (shared / "projects").mkdir(mode=0o700, parents=True)
    for name in BOTH:
        home = fleet.folder / "homes" / name
        home.mkdir(mode=0o700, parents=True)
        (home / "projects").symlink_to(shared / "projects")
    fleet.settings["shared"] = {"root": "shared", "strict": strict, "links": ["projects"]}
    fleet.settings["accounts"] = [{"name": name, "home": f"homes/{name}"} for name in BOTH]


def snapshot(fleet: Fleet) -> dict[str, tuple[object, ...]]:
    """Return everything below the homes and the shared root, so that a change would show."""
    found = {}
    for top in ("homes", "shared"):
        for folder, folders, files in os.walk(fleet.folder / top):
            for name in [".", *folders, *files]:
                path = Path(folder, name)
                stat = path.lstat()
                text = os.readlink(path) if path.is_symlink() else ""
                found[str(path)] = (stat.st_ino, stat.st_mode, stat.st_mtime_ns, text)
    return found


def link(fleet: Fleet) -> Path:
    """Return the link of account `two`, the one that is broken."""
    return fleet.folder / "homes" / "two" / "projects"


def missing(fleet: Fleet) -> None:
    link(fleet).unlink()


def elsewhere(fleet: Fleet) -> None:
    (fleet.folder / "elsewhere").mkdir()
    link(fleet).unlink()
    link(fleet).symlink_to(fleet.folder / "elsewhere")


def dangling(fleet: Fleet) -> None:
    (fleet.folder / "shared" / "projects").rmdir()


def loop(fleet: Fleet) -> None:
    link(fleet).unlink()
    link(fleet).symlink_to("projects")


def real_folder(fleet: Fleet) -> None:
    link(fleet).unlink()
    link(fleet).mkdir()
    (link(fleet) / "kept.jsonl").write_text("{}\n")


def real_file(fleet: Fleet) -> None:
    link(fleet).unlink()
    link(fleet).write_text("a file")


def writable_by_others(fleet: Fleet) -> None:
    (fleet.folder / "shared" / "projects").chmod(0o777)


def home_in_a_home(fleet: Fleet) -> None:
    inner = fleet.folder / "homes" / "one" / "two"
    inner.mkdir(mode=0o700)
    (inner / "projects").symlink_to(fleet.folder / "shared" / "projects")
    fleet.settings["accounts"][1]["home"] = "homes/one/two"


def never_linked(fleet: Fleet) -> None:
    (fleet.folder / "credentials").write_text("secret")
    (link(fleet).parent / ".credentials.json").symlink_to(fleet.folder / "credentials")


DIVERGENCES: list[tuple[Callable[[Fleet], None], str, bool]] = [
    # what is broken, what the reason says of it, whether it is broken for every account
    (missing, "nothing there", False),
    (elsewhere, "found a link to", False),
    (dangling, "where nothing is", True),
    (loop, "leads back to itself", False),
    (real_folder, "a real folder", False),
    (real_file, "a real file", False),
    (writable_by_others, "writable by everybody", True),
    (home_in_a_home, "in the home", False),
    (never_linked, "must not be shared", False),
]


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "own-account-only"])
def test_a_divergence_refuses_the_launch_and_nothing_is_touched(fleet: Fleet, strict: bool) -> None:
    """One circusd is asked for all of them, one after the other; it comes up with the first."""
    names = ("first", "second", "homeless")
    for name, account in zip(names, (*BOTH, ""), strict=True):
        fleet.agent(name, failover__account=account)
    for diverge, says, everybody in DIVERGENCES:
        for made in ("homes", "shared"):
            shutil.rmtree(fleet.folder / made, ignore_errors=True)
        accounts(fleet, strict=strict)
        diverge(fleet)
        before = snapshot(fleet)
        if fleet.circusd is None:
            fleet.start()
        else:
            fleet.write()
            fleet.call_all(*({"command": "start", "name": name, "waiting": True} for name in names))
        refused_too = strict or everybody
        _refused(fleet, diverge, says, refused_too)
        # Not strict, an agent of no account has nothing that could diverge.
        fleet.await_phase("homeless", "refused" if strict else "up")
        assert not fleet.socket("second").exists()
        if refused_too:
            assert snapshot(fleet) == before, diverge.__name__
        if strict:
            assert not any(fleet.socket(name).exists() for name in names), diverge.__name__
        fleet.call_all(*({"command": "stop", "name": name, "waiting": True} for name in names))
        assert {fleet.view(name)["phase"] for name in names} == {"stopped"}


def _refused(fleet: Fleet, diverge: Callable[[Fleet], None], says: str, refused_too: bool) -> None:
    """Assert that `second` is refused for what is broken, and `first`, which is in order, as it should be."""
    second = fleet.await_phase("second", "refused")
    assert second["cause"] == "shared-state"
    assert says in second["reason"], second["reason"]
    for part in (*(() if diverge is home_in_a_home else ("account two", "homes/two")), "expected", "found"):
        assert part in second["reason"]
    assert (second["pid"], second["generation"]) == (None, 0)
    fleet.await_watcher("second", "stopped")
    first = fleet.await_phase("first", "refused" if refused_too else "up")
    if refused_too:
        assert says in first["reason"], first["reason"]
        assert first["pid"] is None


def test_every_place_carries_the_same_reason_and_after_the_repair_a_start_launches(fleet: Fleet) -> None:
    accounts(fleet)
    fleet.agent("alpha", failover__account="one", autostart="False")
    fleet.start()
    missing(fleet)
    with Events(fleet) as events:
        refused = fleet.ctl("start", "alpha")
        failure = events.await_one("watcher.alpha.hook_failure")
        published = events.await_one("watcher.alpha.agent", lambda event: event["phase"] == "refused")
    view = fleet.view("alpha")
    reason = view["reason"]
    assert view["phase"] == "refused"
    assert str(link(fleet).parent) in reason
    assert "nothing there" in reason

    assert failure["name"] == "before_start"
    assert reason in failure["error"]
    assert published["reason"] == reason
    assert published["cause"] == "shared-state"
    assert reason in fleet.log.read_text()
    with fleet.store() as store:
        assert store.agents()["alpha"].reason == reason
        assert store.history("alpha")[0]["reason"] == reason
        assert store.launches("alpha") == []
    (logged,) = [record for record in fleet.lifecycle() if record["ev"] == "refuse"]
    assert (logged["identity"], logged["reason"], logged["cause"]) == ("alpha", reason, "shared-state")
    explained = fleet.call("explain", name="alpha")
    assert explained["agent"]["reason"] == reason
    assert explained["gate"] == reason
    assert explained["start_would"]["action"] == "refuse"
    assert reason in explained["start_would"]["reason"]
    assert reason in fleet.ctl("explain", "alpha").out.replace("\n", " ")
    assert fleet.call("status", name="alpha")["status"] == "stopped"

    assert refused.code == 3
    assert reason in refused.err
    again = fleet.ctl("--json", "start", "alpha")
    assert again.code == 3
    assert reason in again.err
    assert again.json()["status"] == "error"
    assert reason in again.json()["reason"]
    plain = fleet.ctl("start", "alpha", program="circusctl")
    assert plain.code == 3
    assert reason in plain.out + plain.err
    plain_json = fleet.ctl("--json", "start", "alpha", program="circusctl")
    assert reason in plain_json.json()["reason"]
    assert fleet.call("status", name="alpha")["status"] == "stopped"
    assert not fleet.socket("alpha").exists()

    link(fleet).symlink_to(fleet.folder / "shared" / "projects")
    started = fleet.ctl("start", "alpha")
    assert started.code == 0, started
    (up,) = fleet.await_up("alpha")
    assert (up["generation"], up["reason"]) == (1, None)
    gates = [record for record in fleet.lifecycle() if record["ev"] == "gate"]
    assert [(gate["action"], gate["accounts"], gate["identity"]) for gate in gates] == [("ok", "2", "alpha")]


def test_all_failures_of_all_accounts_are_listed_together(fleet: Fleet) -> None:
    accounts(fleet)
    fleet.agent("alpha")
    never_linked(fleet)
    missing(fleet)
    (fleet.folder / "homes" / "one" / "projects").unlink()
    fleet.start()
    reason = fleet.await_phase("alpha", "refused")["reason"]
    assert reason.count("nothing there") == 2
    for part in ("account one", "account two", "must not be shared"):
        assert part in reason


def test_an_accepted_gate_is_one_line_that_counts_the_accounts_it_judged(fleet: Fleet) -> None:
    accounts(fleet, strict=False)
    fleet.agent("first", failover__account="one")
    fleet.agent("homeless")
    fleet.start()
    fleet.await_up("first", "homeless")
    gates = {record["identity"]: record for record in fleet.lifecycle() if record["ev"] == "gate"}
    assert len([record for record in fleet.lifecycle() if record["ev"] == "gate"]) == 2
    assert {name: gate["accounts"] for name, gate in gates.items()} == {"first": "1", "homeless": "0"}


def test_no_accounts_where_an_agent_names_one_is_refused(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__account="one")
    fleet.agent("beta")
    fleet.start()
    refused = fleet.await_phase("alpha", "refused")
    assert "account" in refused["reason"]
    assert "'one'" in refused["reason"]
    fleet.await_up("beta")


def test_the_gate_does_not_fail_open_when_its_failures_are_to_be_ignored(fleet: Fleet) -> None:
    accounts(fleet)
    missing(fleet)
    fleet.agent("alpha", hooks__before_start="circus_failover.hooks.enrol,true")
    fleet.start()
    assert "nothing there" in fleet.await_phase("alpha", "refused")["reason"]
    for _ in range(2):
        assert fleet.ctl("start", "alpha").code == 3
    fleet.await_watcher("alpha", "stopped")
    assert fleet.call("list", name="alpha")["pids"] == []
    assert not fleet.socket("alpha").exists()


BROKEN_GATE = """
import os
from circus_failover import shared_state
check = shared_state.check
def broken(*about):
    if os.path.exists(BROKEN):
        raise ZeroDivisionError("broken\\nin two lines")
    return check(*about)
shared_state.check = broken
def hook(*about, **details):
    return True
"""


def test_a_gate_that_raises_refuses_every_launch_and_keeps_nothing_alive_from_being_adopted(
    fleet: Fleet,
) -> None:
    accounts(fleet)
    broken = fleet.folder / "broken"
    (fleet.folder / "modules").mkdir()
    (fleet.folder / "modules" / "broken_gate.py").write_text(f"BROKEN = {str(broken)!r}\n{BROKEN_GATE}")
    fleet.sections["env:alpha"] = {"PYTHONPATH": str(fleet.folder / "modules")}
    ignored = "circus_failover.hooks.enrol,true"
    fleet.agent("alpha", failover__account="one", hooks__after_stop="broken_gate.hook")
    fleet.agent("beta", autostart="False", failover__account="two", hooks__before_start=ignored)
    fleet.start()
    (was,) = fleet.await_up("alpha")
    broken.touch()
    reason = "the gate itself failed: ZeroDivisionError: broken\\nin two lines"

    refused = fleet.ctl("start", "beta")
    assert (refused.code, reason in refused.err) == (3, True), refused
    view = fleet.view("beta")
    assert (view["phase"], view["cause"], view["reason"]) == ("refused", "gate-failed", reason)
    assert fleet.call("explain", name="beta")["gate"] == reason
    restarted = fleet.ctl("restart", "alpha")
    assert restarted.code == 3
    assert "nothing was ended" in restarted.err
    assert not fleet.socket("beta").exists()

    fleet.end(signal.SIGKILL)
    fleet.start()
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"], now["reason"]) == (was["pid"], 1, reason)


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def nothing(path: Path) -> None:
    """Leave it away."""


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def test_settings_that_cannot_be_read_refuse_the_launch_at_once(fleet: Fleet) -> None:
    puts = (directory, fifo, nothing, binary)
    for put in puts:
        hook = "circus_failover.hooks.enrol,true"
        fleet.agent(put.__name__, autostart="False", hooks__before_start=hook)
    fleet.start()
    for put in puts:
        name = put.__name__
        if fleet.yaml.is_dir():
            fleet.yaml.rmdir()
        else:
            fleet.yaml.unlink(missing_ok=True)
        put(fleet.yaml)
        refused = fleet.ctl("start", name)
        assert refused.code == 3, name
        assert str(fleet.yaml) in refused.err, name
        view = fleet.view(name)
        assert (view["phase"], view["cause"], view["generation"]) == ("refused", "settings", 0), name
        assert str(fleet.yaml) in view["reason"], name
        fleet.await_watcher(name, "stopped")
        assert not fleet.socket(name).exists(), name


def in_the_way(folder: Path) -> bool:
    """Put a file in the place of a folder."""
    shutil.rmtree(folder)
    folder.touch(exist_ok=False)
    return True


@pytest.mark.parametrize("name", ["run", "failover.db"])
def test_a_state_directory_that_loses_a_part_does_not_open_the_gate(fleet: Fleet, name: str) -> None:
    accounts(fleet)
    fleet.agent("alpha", autostart="False", failover__account="one")
    fleet.start()
    if name == "run":
        # A tick makes a folder that is gone anew, so that only one that cannot be made is lost for sure.
        wait_for("it is lost", lambda: in_the_way(fleet.state / name))
    else:
        for path in fleet.state.glob(f"{name}*"):
            path.unlink()
    refused = fleet.ctl("start", "alpha")
    assert refused.code == 3, refused
    assert str(fleet.state) in refused.err
    view = fleet.view("alpha")
    assert (view["phase"], view["cause"]) == ("refused", "state-dir")
    assert not fleet.socket("alpha").exists()


def test_a_lost_store_does_not_open_the_gate_for_diverging_accounts(fleet: Fleet) -> None:
    accounts(fleet)
    fleet.agent("alpha", autostart="False", failover__account="one")
    fleet.start()
    missing(fleet)
    for path in fleet.state.glob("failover.db*"):
        path.unlink()
    assert fleet.ctl("start", "alpha").code == 3
    assert not fleet.socket("alpha").exists()


@pytest.mark.parametrize("broken", ["a directory for a store", "open to others", "a file for a folder"])
def test_a_state_directory_that_cannot_be_used_refuses_every_agent_and_circusd_runs(
    fleet: Fleet, broken: str
) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    fleet.watcher("plain", "sleep 3600")
    if broken == "a directory for a store":
        (fleet.state / "failover.db").mkdir(mode=0o700, parents=True)
        fleet.state.chmod(0o700)
    elif broken == "open to others":
        fleet.state.mkdir()
        fleet.state.chmod(0o755)
    else:
        fleet.state.write_text("no folder")
    fleet.start()
    view = fleet.await_phase("alpha", "refused")
    assert view["cause"] == "state-dir"
    assert str(fleet.state) in view["reason"]
    assert fleet.call("fleet")["circusd"]["trouble"] == view["reason"]
    assert fleet.ctl("start", "beta").code == 3
    fleet.await_watcher("plain", "active")


def test_a_live_agent_is_adopted_while_the_gate_fails_and_the_divergence_is_shown(fleet: Fleet) -> None:
    accounts(fleet)
    fleet.agent("alpha", failover__account="one")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    fleet.end(signal.SIGKILL)
    missing(fleet)
    fleet.start()
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)
    assert "nothing there" in now["reason"]

    # Its keeper may come and go as well: the gate decides launches only.
    keeper = fleet.keeper("alpha")
    os.kill(keeper, signal.SIGKILL)
    wait_for("another keeper", lambda: fleet.call("list", name="alpha")["pids"] not in ([], [keeper]))
    assert fleet.view("alpha")["pid"] == was["pid"]
    assert alive(was["pid"])


MISTAKES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "several": ({"numprocesses": "2"}, ("numprocesses", "2", "one session")),
    "foreigner": ({"uid": "65534"}, ("uid", "65534", "the user that runs circusd")),
    "Bad_Name": ({}, ("name", "Bad_Name", "an identity")),
    "unknown": ({"failover.restrat": "lazy"}, ("failover.restrat", "did you mean 'failover.restart'")),
    "file-socket": ({"failover.socket": "circus.ini"}, ("failover.socket", "something else is there")),
    "lost-socket": ({"failover.socket": "no/such/s"}, ("failover.socket", "no/such is none")),
    "long-socket": ({"failover.socket": "/tmp/" + "s" * 120}, ("failover.socket", "107 bytes")),
    "lost": ({"working_dir": "/nowhere/at/all"}, ("working_dir", "/nowhere/at/all", "an existing folder")),
    "shelled": ({"shell": "True"}, ("shell", "no shell")),
    "wordy": ({"failover.restart": "sometimes"}, ("failover.restart", "sometimes", "lazy, on-work, always")),
    "speechless": ({"failover.command": ""}, ("failover.command", "the command that runs the agent")),
    "fast": ({"failover.stop_secs": "soon"}, ("failover.stop_secs", "soon", "seconds")),
}


def test_a_mistake_refuses_its_own_agent_alone_and_fleet_names_it(fleet: Fleet) -> None:
    fleet.agent("good")
    for name, (options, _) in MISTAKES.items():
        fleet.agent(name, **{key.replace(".", "__"): value for key, value in options.items()})
    fleet.agent("fine")
    fleet.start()
    fleet.await_up("good", "fine")
    for name, (_, says) in MISTAKES.items():
        view = fleet.await_phase(name, "refused")
        assert view["cause"] == ("working-dir" if name == "lost" else "settings"), view
        for part in (f"[watcher:{name}]", *says, str(fleet.ini)):
            assert part in view["reason"], (part, view["reason"])
        fleet.await_watcher(name.lower(), "stopped")
    assert len(list((fleet.state / "tmux").iterdir())) == 2
    shown = fleet.ctl("fleet").out
    assert all(name in shown for name in MISTAKES)


def test_a_mistake_of_an_agent_that_is_not_started_is_shown_too(fleet: Fleet) -> None:
    fleet.agent("alpha", autostart="False", failover__restrat="lazy")
    fleet.start()
    view = fleet.view("alpha")
    assert view["generation"] == 0
    assert "failover.restrat" in (view["reason"] or "")
    refused = fleet.ctl("start", "alpha")
    assert refused.code == 3
    assert "failover.restrat" in refused.err


def test_agents_that_were_never_started_are_known_from_circusds_start(fleet: Fleet) -> None:
    for name in ("alpha", "beta"):
        fleet.agent(name, autostart="False")
    fleet.start()
    answer = fleet.call("fleet")
    assert [(agent["identity"], agent["phase"], agent["generation"]) for agent in answer["agents"]] == [
        ("alpha", "down", 0),
        ("beta", "down", 0),
    ]
    assert all(agent["pid"] is None and agent["since"] is None for agent in answer["agents"])
    assert fleet.ctl("explain", "beta").code == 0
    assert fleet.ctl("stop", "beta").code == 0
    assert fleet.view("beta")["phase"] == "stopped"
    assert fleet.ctl("start", "alpha").code == 0
    fleet.await_up("alpha")


def test_an_agent_of_another_state_directory_is_refused_alone(fleet: Fleet) -> None:
    other = fleet.folder / "other.yaml"
    other.write_text('{"state_dir": "other-state"}')
    fleet.agent("alpha")
    fleet.agent("beta", failover__config=str(other))
    fleet.start()
    fleet.await_up("alpha")
    view = fleet.await_phase("beta", "refused")
    assert "other-state" in view["reason"]
    assert str(fleet.state) in view["reason"]
    assert fleet.ctl("start", "beta").code == 3


def test_a_restart_that_the_gate_would_refuse_ends_nothing(fleet: Fleet) -> None:
    """Ending first and being refused then would cost the agent's work for nothing."""
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    fleet.await_screen("alpha", "standin ready")  # a Python that starts needs the directory it is in
    shutil.rmtree(fleet.work)

    done = fleet.ctl("restart", "alpha")
    assert done.code == 3
    assert "nothing was ended" in done.err
    assert str(fleet.work) in done.err
    now = fleet.view("alpha")
    assert (now["phase"], now["pid"], now["generation"]) == ("up", was["pid"], was["generation"])

    fleet.work.mkdir()
    assert fleet.ctl("restart", "alpha").code == 0
    assert fleet.view("alpha")["generation"] == was["generation"] + 1
