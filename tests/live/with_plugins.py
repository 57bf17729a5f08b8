"""Plugins on a real fleet, for tests: describing them, and waiting for what they say and do."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from circus_failover import tmux
from circus_failover.canary import asking
from circus_failover.process_table import ProcessId
from circus_failover.records import PluginRow
from tests.live.fleet import Fleet, wait_for

REAPER = "circus_failover.plugins.IdleReaper"
GUARD = "circus_failover.plugins.CrashLoopGuard"
CANARY = "circus_failover.plugins.Canary"
CRASHES = "sh -c 'sleep 0.6; exit 1'"
NEVER = "3600"


def with_reaper(fleet: Fleet, **options: str) -> None:
    """Give the fleet an idle reaper that ticks often, and tells what it sees of every agent."""
    fleet.plugins["plugin:idle"] = {"use": REAPER, "interval": "0.5", **options}
    fleet.settings["log_verbose"] = True


def with_guard(fleet: Fleet, **options: str) -> None:
    fleet.plugins["plugin:guard"] = {"use": GUARD, "interval": "0.5", **options}


def with_canary(fleet: Fleet, **options: str) -> None:
    """Give the fleet a canary whose plugin ticks often."""
    fleet.plugins["plugin:canary"] = {"use": CANARY, "interval": "0.2", **options}


def canary(fleet: Fleet) -> ProcessId | None:
    """Return the canary that runs for a fleet, or None."""
    return asking.holder(str(fleet.state))


def await_watched(fleet: Fleet, *servers: int) -> dict[str, Any]:
    """Wait until the canary watches these servers (pids) and no others, and return what it says of itself."""

    def look() -> dict[str, Any] | None:
        said = asking.ask(str(fleet.state), ask="status")
        pids = sorted(server["pid"] for server in said["servers"]) if said is not None else None
        return said if pids == sorted(servers) else None

    return wait_for(f"the canary watches {servers}", look)


def said(fleet: Fleet, identity: str, **wanted: str) -> list[dict[str, str]]:
    """Return what the log says was found or done about an agent, as far as it is as wanted."""
    return [
        record
        for record in fleet.lifecycle()
        if record["ev"] == "supervise"
        and record["identity"] == identity
        and all(text in record[key] for key, text in wanted.items())
    ]


def await_said(fleet: Fleet, identity: str, **wanted: str) -> dict[str, str]:
    """Wait until the log says this of an agent, and return the first such record."""
    return wait_for(f"of {identity}: {wanted}", lambda: said(fleet, identity, **wanted), 40.0)[0]


def row(fleet: Fleet, plugin: str) -> PluginRow:
    """Return what a plugin last said of itself, once it has."""

    def look() -> PluginRow | None:
        with fleet.store() as store:
            return store.plugins().get(plugin)

    return wait_for(f"{plugin} has ticked", look)


def await_ticks(fleet: Fleet, plugin: str, number: int = 3) -> None:
    """Wait until a plugin has ticked so many times more: what a tick would do, it has done."""
    seen = {row(fleet, plugin).at}

    def look() -> bool:
        seen.add(row(fleet, plugin).at)
        return len(seen) > number

    wait_for(f"{number} more ticks of {plugin}", look)


def await_generation(fleet: Fleet, name: str, generation: int) -> None:
    """Wait until an agent is up in this launch."""
    wait_for(
        f"{name} is up in generation {generation}",
        lambda: (view := fleet.view(name))["phase"] == "up" and view["generation"] == generation,
    )


def causes(fleet: Fleet, name: str) -> list[str]:
    """Return why each launch of an agent was made, the first one first."""
    with fleet.store() as store:
        return [launch.cause for launch in reversed(store.launches(name))]


def by_hand(
    fleet: Fleet, use: str, pubsub: str, endpoint: str | None = None, **options: str
) -> subprocess.Popen[bytes]:
    """Start a plugin as Circus does."""
    given = ":::".join(f"{name}:{value}" for name, value in options.items())
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "from circus import plugins;plugins.main()"),
            *("--endpoint", endpoint or fleet.endpoint, "--pubsub", pubsub, "--config", given, use),
        ],
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def a_person_looking_at(fleet: Fleet, name: str, session: str | None = None) -> Iterator[None]:
    """Attach a real client of tmux, on a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**fleet.environment, "TERM": "xterm"}
        argv = tmux.attach_arguments(fleet.socket(name), session or name)
        os.execvpe(argv[0], argv, environment)
    try:
        wait_for(
            "the client is attached",
            lambda: (
                fleet.tmux(fleet.socket(name), "list-clients", "-F", "#{client_pid}").split() == [str(pid)]
            ),
        )
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def restarted(fleet: Fleet, watcher: str, plugin: str) -> None:
    """Kill a plugin, and wait until its successor has ticked."""
    (pid,) = fleet.call("list", name=watcher)["pids"]
    os.kill(pid, signal.SIGKILL)
    wait_for("its successor ticks", lambda: row(fleet, plugin).pid != pid)
