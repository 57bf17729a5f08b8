"""What lives is adopted: a session started by hand, on its own socket or on a shared server."""

from __future__ import annotations

import os
import signal
import socket as sockets
from pathlib import Path

import pytest

from tests.live.fleet import Fleet, alive, wait_for


@pytest.fixture
def shared(fleet: Fleet) -> Path:
    """Return the socket of a server that the agents share with its owner."""
    return fleet.folder / "owner" / "tmux.sock"


def configuration(fleet: Fleet, socket: Path) -> dict[str, str]:
    """Return everything an operator could have configured on a server."""
    return {
        "options": fleet.tmux(socket, "show-options", "-g"),
        "server": fleet.tmux(socket, "show-options", "-s"),
        "windows": fleet.tmux(socket, "show-options", "-g", "-w"),
        "hooks": fleet.tmux(socket, "show-hooks", "-g"),
        "environment": fleet.tmux(socket, "show-environment", "-g"),
    }


@pytest.mark.parametrize("autostart", ["True", "False"])
def test_a_session_started_by_hand_is_adopted_at_circusds_start(fleet: Fleet, autostart: str) -> None:
    pid = fleet.by_hand(fleet.socket("alpha"), "alpha")
    fleet.agent("alpha", autostart=autostart)
    fleet.start()
    (view,) = fleet.await_up("alpha")
    assert (view["pid"], view["generation"], view["cause"]) == (pid, 1, "adopted-foreign")
    (adopted,) = [record for record in fleet.lifecycle() if record["ev"] == "adopt"]
    assert (adopted["identity"], adopted["pid"]) == ("alpha", str(pid))
    assert not any(record["ev"] == "launch" for record in fleet.lifecycle())

    # The next circusd knows it by its number.
    fleet.end(signal.SIGKILL)
    fleet.start()
    (again,) = fleet.await_up("alpha")
    assert (again["pid"], again["generation"]) == (pid, 1)

    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert not alive(pid)
    assert fleet.view("alpha")["phase"] == "stopped"


def test_a_session_started_by_hand_is_adopted_by_start_and_never_doubled(fleet: Fleet) -> None:
    fleet.agent("alpha", autostart="False")
    fleet.start()
    pid = fleet.by_hand(fleet.socket("alpha"), "alpha")
    started = fleet.ctl("start", "alpha")
    assert started.code == 0, started
    (view,) = fleet.await_up("alpha")
    assert view["pid"] == pid
    assert fleet.tmux(fleet.socket("alpha"), "list-sessions", "-F", "#{session_name}").split() == ["alpha"]
    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert not alive(pid)


def test_a_session_on_a_shared_server_is_adopted_and_ended_and_its_owner_keeps_everything(
    fleet: Fleet, shared: Path
) -> None:
    owners = fleet.by_hand(shared, "owners-own", "sleep 3600")
    near = fleet.by_hand(shared, "alpha2", "sleep 3600")
    fleet.tmux(shared, "set-option", "-g", "remain-on-exit", "off")
    fleet.tmux(shared, "set-option", "-g", "history-limit", "1234")
    fleet.tmux(shared, "set-option", "-g", "status-left", "mine")
    fleet.tmux(shared, "set-hook", "-g", "session-created", "display-message created")
    fleet.tmux(shared, "set-hook", "-g", "pane-died", "display-message died")
    pid = fleet.by_hand(shared, "alpha")
    before = configuration(fleet, shared)
    fleet.agent("alpha", failover__socket=str(shared))
    fleet.agent("beta", failover__socket=str(shared))
    fleet.start()
    alpha, beta = fleet.await_up("alpha", "beta")
    assert alpha["pid"] == pid
    assert alpha["server_pid"] == beta["server_pid"]
    assert configuration(fleet, shared) == before

    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert not alive(pid)
    assert fleet.ctl("restart", "beta").code == 0
    assert not alive(beta["pid"])
    (again,) = fleet.await_up("beta")
    assert again["generation"] == 2
    assert fleet.ctl("stop", "beta", "--waiting").code == 0
    assert sorted(fleet.tmux(shared, "list-sessions", "-F", "#{session_name}").split()) == [
        "alpha2",
        "owners-own",
    ]
    assert configuration(fleet, shared) == before
    assert alive(owners)
    assert alive(near)


def test_a_shared_server_is_started_when_nobody_serves_its_socket(fleet: Fleet, shared: Path) -> None:
    shared.parent.mkdir(mode=0o700)
    for name in ("alpha", "beta", "gamma"):
        fleet.agent(name, failover__socket=str(shared))
    fleet.start()
    views = fleet.await_up("alpha", "beta", "gamma")
    assert len({view["server_pid"] for view in views}) == 1
    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert all(alive(view["pid"]) for view in views[1:])


def test_another_name_for_the_session_is_adopted_too(fleet: Fleet) -> None:
    pid = fleet.by_hand(fleet.socket("alpha"), "My_Session")
    fleet.agent("alpha", failover__session="My_Session")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    assert (view["pid"], view["session"]) == (pid, "My_Session")


@pytest.mark.parametrize("how", ["left by a dead server", "left by a bound socket"])
def test_a_stale_socket_file_does_not_hinder_a_launch(fleet: Fleet, how: str) -> None:
    path = fleet.socket("alpha")
    if how == "left by a dead server":
        fleet.by_hand(path, "alpha", "sleep 3600")
        server = int(fleet.tmux(path, "display-message", "-p", "#{pid}"))
        os.kill(server, signal.SIGKILL)
        wait_for("the server is gone", lambda: not alive(server))
    else:
        path.parent.mkdir(mode=0o700, parents=True)
        fleet.state.chmod(0o700)
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as listener:
            listener.bind(str(path))
    assert path.exists()
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")


def test_a_file_in_the_place_of_a_socket_is_somebodys_and_stays(fleet: Fleet) -> None:
    """tmux 3.3a would replace it, as it does any address that refuses a connection."""
    path = fleet.socket("alpha")
    path.parent.mkdir(mode=0o700, parents=True)
    fleet.state.chmod(0o700)
    path.write_text("mine")
    fleet.agent("alpha")
    fleet.start()
    refused = fleet.await_phase("alpha", "refused")
    assert str(path) in refused["reason"] and path.read_text() == "mine"


def test_a_live_agent_whose_working_folder_is_gone_is_adopted_once(fleet: Fleet) -> None:
    folder = fleet.folder / "tree"
    folder.mkdir()
    fleet.agent("alpha", working_dir=str(folder))
    fleet.start()
    (was,) = fleet.await_up("alpha")
    fleet.await_screen("alpha", "standin ready")
    fleet.end(signal.SIGKILL)
    folder.rmdir()
    fleet.start()
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)
    assert str(folder) in (now["reason"] or "")
    adopted = len([record for record in fleet.lifecycle() if record["ev"] == "adopt"])
    fleet.await_ticks(3)
    assert len([record for record in fleet.lifecycle() if record["ev"] == "adopt"]) == adopted


def test_a_lost_store_does_not_lose_a_live_agent(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    fleet.end(signal.SIGKILL)
    for path in fleet.state.glob("failover.db*"):
        path.unlink()
    fleet.start()
    (now,) = fleet.await_up("alpha")
    assert now["pid"] == was["pid"]
    assert fleet.tmux(fleet.socket("alpha"), "list-sessions", "-F", "#{session_name}").split() == ["alpha"]


class TestRestored:
    """What circusd finds at its own start is the fleet as it was."""

    def test_never_launched_starts_unless_autostart_is_off(self, fleet: Fleet) -> None:
        fleet.agent("old")
        fleet.start()
        fleet.await_up("old")
        fleet.end()
        fleet.agent("new")
        fleet.agent("idle", autostart="False")
        fleet.start()
        fleet.await_up("old", "new")
        assert fleet.view("idle")["phase"] == "down"
        assert fleet.view("old")["generation"] == 1

    def test_stopped_stays_stopped(self, fleet: Fleet) -> None:
        fleet.agent("alpha", failover__restart="always")
        fleet.agent("never", autostart="False", failover__restart="lazy")
        fleet.start()
        fleet.await_up("alpha")
        assert fleet.ctl("stop", "alpha", "never", "--waiting").code == 0
        for how in (signal.SIGTERM, signal.SIGKILL):
            fleet.end(how)
            fleet.start()
            fleet.await_ticks()
            assert [fleet.view(name)["phase"] for name in ("alpha", "never")] == ["stopped", "stopped"]
            fleet.await_watcher("alpha", "stopped")
        assert fleet.ctl("start", "alpha").code == 0
        assert fleet.view("alpha")["generation"] == 2

    @pytest.mark.parametrize("while_down", [False, True], ids=["under-circusd", "without-circusd"])
    def test_ended_by_itself_stays_down_unless_it_is_always_wanted(
        self, fleet: Fleet, while_down: bool
    ) -> None:
        policies = ("lazy", "on-work", "always")
        for name in policies:
            fleet.agent(name, failover__restart=name)
        fleet.start()
        fleet.guard()
        views = fleet.await_up(*policies)
        if while_down:
            fleet.end(signal.SIGTERM)
        for view in views:
            os.kill(view["pid"], signal.SIGKILL)
        wait_for("all have ended", lambda: not any(alive(view["pid"]) for view in views))
        if not while_down:
            for name in policies[:2]:
                fleet.await_phase(name, "down")
            fleet.end(signal.SIGTERM)
        fleet.start()
        (back,) = fleet.await_up("always")
        assert back["generation"] == 2
        for name in policies[:2]:
            down = fleet.await_phase(name, "down")
            assert (down["generation"], down["pid"]) == (1, None)
            wait_for("how it ended is known", lambda name=name: fleet.view(name)["last_cause"] == "signaled")
            fleet.await_watcher(name, "stopped")
            assert fleet.ctl("start", name).code == 0
            assert fleet.view(name)["generation"] == 2


def test_a_failover_yaml_that_is_mended_needs_no_restart_of_circusd(fleet: Fleet) -> None:
    """It could not be read when circusd started; once it can be, live agents are adopted and others start."""
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    fleet.end(signal.SIGKILL)

    good = fleet.settings
    fleet.settings = {**good, "sate_dir": "state"}
    fleet.start()
    assert "sate_dir" in fleet.view("alpha")["reason"]
    refused = fleet.ctl("start", "beta")
    assert refused.code == 3
    assert "sate_dir" in refused.err

    fleet.settings = good
    fleet.write()
    assert fleet.ctl("start", "beta").code == 0
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], was["generation"])
    second = fleet.ctl("stop", "alpha", "--waiting")
    assert second.code == 0, second
    assert not alive(was["pid"])
