"""One circusd a state directory: the lock is taken before circusd binds its endpoint.

A second circusd that binds the same ipc endpoint leaves the first one deaf for good (Circus 0.19), and
the only moment before the bind at which code of ours runs is the import of the hook module. There the
lock is taken, and what a dead circusd left behind (plugins, keepers) is ended before it could speak to
its successor.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from circus_failover import process_table, state_dir, tmux
from circus_failover.process_table import ProbeFailed
from circus_failover.state_dir import StateDir, StateDirError, StateDirHeld
from circus_failover.store import Store, StoreError

_held: dict[Path, int] = {}
SWEEP_GRACE_SECS = 1.0
EXIT_HELD = 3
SCRUBBED = frozenset(
    {
        "TMUX",
        "TMUX_PANE",
        "FAILOVER_IDENTITY",
        "FAILOVER_GENERATION",
        "FAILOVER_LAUNCH",
        "FAILOVER_CONVERSATION",
        "FAILOVER_HOME",
        "FAILOVER_STATE_DIR",
    }
)
"""Variables of an agent or a tmux server from which a circusd may have been started."""


def hold(state: StateDir, endpoint: str, ini: str) -> None:
    """Take the lock of a state directory for the rest of this process's life; again is no error.

    Raises:
        StateDirHeld: another circusd holds it.
    """
    if state.path not in _held:
        _held[state.path] = state_dir.claim(state, endpoint, ini)


def arbiter_of_this_process() -> Any:
    """Return the arbiter when one exists in this process, through the signal handler it installed."""
    from circus.sighandler import SysHandler

    handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return handler.controller.arbiter if isinstance(handler, SysHandler) else None


def circusd_config() -> Path | None:
    """Return the ini file of the circusd that this process is about to become; None when it is none.

    At import time Circus has parsed the ini but keeps no reference that a hook module could reach, so
    it is found in `sys.argv`, as circusd itself does. Whatever runs circusd's own module is one: packages
    wrap its script under other names, and `python -m circus.circusd` has the module as its main one.
    """
    runs_circusd = "circus.circusd" in sys.modules or Path(sys.argv[0]).stem == "circusd"
    if not runs_circusd or arbiter_of_this_process() is not None:
        return None
    names = [
        argument for argument in sys.argv[1:] if not argument.startswith("-") and Path(argument).is_file()
    ]
    options = {"--log-level", "--log-output", "--logger-config", "--pidfile"}
    for index, argument in enumerate(sys.argv[1:], start=1):
        if argument in names and sys.argv[index - 1] not in options:
            return Path(argument)
    return None


def claim_before_bind() -> None:
    """In circusd, before it binds: take the lock, end what a dead predecessor left; else do nothing.

    Raises:
        SystemExit: another circusd holds the state directory; the message says which.
    """
    ini = circusd_config()
    if ini is None:
        return
    from circus_failover import fleet_file, settings

    try:
        fleet = fleet_file.read(ini)
    except settings.SettingsError:
        # circusd reads it next, and says itself what is wrong.
        return
    try:
        for path in fleet.config_paths():
            _claim(path, fleet.endpoint, ini)
        for endpoint in (fleet.endpoint, fleet.pubsub_endpoint):
            _refuse_second(endpoint)
    except StateDirHeld as error:
        print(f"circusd: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_HELD) from error


def _claim(config: Path, endpoint: str, ini: Path) -> None:
    from circus_failover import settings

    try:
        state = StateDir(settings.load(config).state_dir)
        state.prepare()
        hold(state, endpoint, str(ini.resolve()))
        sweep(state)
    except StateDirHeld:
        raise
    except (settings.SettingsError, StateDirError, StoreError):
        # The agents that use it are refused with this very reason when the arbiter is up; circusd runs.
        return


def _refuse_second(endpoint: str) -> None:
    """Refuse to bind an ipc endpoint that somebody serves: ZeroMQ would take it over without a word.

    Raises:
        StateDirHeld: a process accepts connections there.
    """
    if not endpoint.startswith("ipc://"):
        return
    path = Path(endpoint.removeprefix("ipc://"))
    if tmux.serves(path):
        pid = tmux.server_pid(path)
        raise StateDirHeld(f"the endpoint {endpoint} is served by pid {pid}: one circusd at a time")


def sweep(state: StateDir) -> None:
    """End the plugins and keepers of a circusd that died, by pid and start time, and forget them."""
    store = Store(state.store)
    try:
        boot = process_table.boot_id()
        children = store.children()
        left = [child for child in children if child.boot == boot and _runs(child.process)]
        for child in left:
            # Taken out of Circus's hands by its death; SIGTERM lets a plugin close its files.
            process_table.send(child.process, signal.SIGTERM)
        begun = time.monotonic()
        while any(_runs(child.process) for child in left) and time.monotonic() - begun < SWEEP_GRACE_SECS:
            time.sleep(0.01)
        for child in left:
            process_table.send(child.process, signal.SIGKILL)
        if children:
            with store.decision(durable=False):
                for child in children:
                    store.remove_child(child.process)
    finally:
        store.close()


def _runs(process: process_table.ProcessId) -> bool:
    try:
        return process_table.alive(process)
    except ProbeFailed:
        return False


def scrub_environment() -> None:
    """Forget the variables of an agent or a tmux server that this circusd was started from."""
    for name in SCRUBBED:
        os.environ.pop(name, None)
