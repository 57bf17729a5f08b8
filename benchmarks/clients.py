"""From a wake to ready, with the real clients, beside the client's own bare start-up in the same run.

Both resume a conversation of the same size, and are ready by the same proof (`Runtime.boot`). Bare is the
client in a plain tmux session, from starting that; ours is from the message to the phase `up`. Needs npm
once (`tests/clients/install.py`); nothing here uses a network.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.ground import say
from benchmarks.result import Figure, Result, middle
from circus_failover import process_table, tmux
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import Place, Screen
from circus_failover.words import BootStage
from tests.clients import accounts, install
from tests.clients.accounts import Home
from tests.clients.client import Client, end_marked
from tests.clients.install import Clients, NotInstalled
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.real_fleet import RealFleet
from tests.live.fleet import Events, Fleet

POLL_SECS = 0.005
READY_SECS = 60.0


def benchmark(rounds: int) -> list[Result]:
    """Wake an agent of each client, and start the client by itself, in turn.

    Args:
        rounds: how often each.

    Raises:
        RuntimeError: the clients are not installed, or one does not become ready.
    """
    try:
        clients = install.ensure()
    except NotInstalled as error:
        raise RuntimeError(str(error)) from error
    try:
        return [_measure(clients, runtime, rounds) for runtime in ("claude", "codex")]
    except AssertionError as error:  # of the harness: what was awaited did not come
        raise RuntimeError(str(error)) from error


def _measure(clients: Clients, runtime: str, rounds: int) -> Result:
    say(f"{rounds} wakes of a {runtime} agent, and as many starts of {runtime} alone")
    with ExitStack() as stack:
        yard = Yard(stack, clients)
        folder, work, fleet, real = yard.folder, yard.work, yard.real.fleet, yard.real
        home = yard.account(runtime, "a")
        args = "--dangerously-skip-permissions" if runtime == "claude" else ""
        for name in ("ours", "bare"):
            real.agent(name, home, work, args, failover__ready_secs="0")
        fleet.start()
        for name in ("ours", "bare"):
            fleet.await_phase(name, "up", READY_SECS)
            real.task(name, f"I am {name}")
            real.await_heard(home.key, f"I am {name}")
            real.await_state(name, "idle")
        conversation = fleet.view("bare")["conversation"]
        fleet.ctl("park", "ours", "bare", "--waiting")
        program = clients.claude if runtime == "claude" else clients.codex_native
        resume = ["--resume", conversation] if runtime == "claude" else ["resume", conversation]
        taken: dict[str, list[float]] = {"ours": [], "bare": []}
        for number in range(rounds):
            own = folder / f"t{number}"
            own.mkdir()
            begun = time.perf_counter()
            argv = [str(program), *resume, *args.split()]
            client = Client(own, yard.network, argv, home.variables, work, str(folder))
            until(ready(runtime, home, client, work, conversation))
            taken["bare"].append(time.perf_counter() - begun)
            client.end(signal.SIGTERM)
            with Events(fleet) as events:
                begun = time.perf_counter()
                fleet.call("wake", name="ours", timeout=READY_SECS)
                events.await_one("watcher.ours.agent", lambda message: message["phase"] == "up")
                taken["ours"].append(time.perf_counter() - begun)
            fleet.ctl("park", "ours", "--waiting")
    ratio = middle([ours / bare for ours, bare in zip(taken["ours"], taken["bare"], strict=True)])
    return Result(
        benchmark="clients",
        what=f"wake of a {runtime} agent to ready, a resume",
        ours=Figure(middle(taken["ours"]), "s"),
        beside=Figure(middle(taken["bare"]), "s", f"{runtime} alone in tmux, to ready"),
        ratio=ratio,
        details={f"{name}_secs": values for name, values in taken.items()},
    )


class Yard:
    """A temporary folder with a mock of the services, and a fleet of real clients in its network."""

    def __init__(self, stack: ExitStack, clients: Clients) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cf-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        stack.callback(end_marked, str(self.folder))
        self.network = stack.enter_context(Network())
        assert self.network.listener is not None
        self.mock = Mock(self.network.listener)
        stack.callback(self.mock.close)
        self.work = self.folder / "work"
        self.work.mkdir()
        (self.folder / "fleet").mkdir()
        fleet = Fleet(self.folder / "fleet")
        stack.callback(fleet.close)
        self.real = RealFleet(fleet, clients, self.network, self.mock)

    def account(self, runtime: str, name: str) -> Home:
        """Add an account, which shares what lets it stand in for the others."""
        folder, shared = self.folder / f"home-{name}", self.folder / "shared"
        if runtime == "claude":
            home: Home = accounts.make_claude_home(folder, name, self.mock.url, [self.work])
            home.link(shared, accounts.CLAUDE_SHARED)
        else:
            home = accounts.make_codex_home(folder, name, self.mock.url, [self.work])
            home.link(shared, accounts.CODEX_SHARED)
        self.real.account(home, shared)
        return home


def ready(runtime: str, home: Home, client: Client, work: Path, conversation: str) -> Callable[[], bool]:
    """Return what says whether a client that was started by itself is ready."""

    def screen() -> Screen | None:
        found = tmux.screen(client.socket, client.pane)
        return None if found is None else found[1]

    begun = time.time() - process_table.seconds_since(client.process().start)
    place = Place(client.process(), home.folder, work, conversation, begun - 0.1, screen=screen)
    return lambda: RUNTIMES[runtime].boot(place).stage is BootStage.READY


def until(ready: Callable[[], bool]) -> None:
    """Wait until a client is ready."""
    end = time.monotonic() + READY_SECS
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"the client is not ready within {READY_SECS:g} s")
        time.sleep(POLL_SECS)
