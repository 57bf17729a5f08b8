"""A fleet of real clients: a real circusd in the network of the mock, and agents with accounts."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from circus_failover import process_table, tmux
from tests import proc
from tests.clients.accounts import ClaudeHome, Home
from tests.clients.client import in_input_box
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.clients.waiting import LONGEST_SECS
from tests.live.fleet import Fleet, wait_for

OWNED = ("CLAUDE_CONFIG_DIR", "CODEX_HOME")
"""What the supervisor sets itself, so that an env_file may not."""


class RealFleet:
    """A fleet whose agents are real clients."""

    def __init__(self, fleet: Fleet, clients: Clients, network: Network, mock: Mock) -> None:
        self.fleet = fleet
        self.clients = clients
        self.mock = mock
        self._told: dict[str, float] = {}
        """When each agent was told something last, in epoch seconds."""
        fleet.prefix = network.prefix
        user = fleet.folder / "user"
        user.mkdir()
        fleet.environment.update(network.variables, HOME=str(user), LANG="C.UTF-8")
        fleet.settings["accounts"] = []
        fleet.states(interval="1")

    def account(self, home: Home, shared: Path | None = None) -> None:
        """Add an account of this home; its links lead to `shared`, as those of all others."""
        runtime = "claude" if isinstance(home, ClaudeHome) else "codex"
        path = self.fleet.folder / f"{home.name}.env"
        own = {name: value for name, value in home.variables.items() if name not in OWNED}
        Home(home.name, home.folder, home.key, own).env_file(path)
        self.fleet.settings["accounts"].append(
            {"name": home.name, "runtime": runtime, "home": str(home.folder), "env_file": str(path)}
        )
        if shared is not None:
            self.fleet.settings["shared"] = {"root": str(shared)}

    def agent(self, name: str, home: Home, work: Path, args: str = "", **options: str) -> None:
        """Add an agent of an account."""
        claude = isinstance(home, ClaudeHome)
        program = self.clients.claude if claude else self.clients.codex_native
        self.fleet.agent(
            name,
            **{
                "failover__runtime": "claude" if claude else "codex",
                "failover__command": shlex.quote(str(program)),
                "failover__args": args,
                "failover__account": home.name,
                "failover__restart": "lazy",
                "working_dir": str(work),
                **options,
            },
        )

    def task(self, name: str, text: str) -> None:
        """Give an agent a task, waking it where it is down, and wait until it has taken it."""
        self._told[name] = time.time()
        done = self.fleet.ctl("wake", name, "--task", text, "--waiting", timeout=LONGEST_SECS)
        assert done.code == 0, done

    def type(self, name: str, text: str) -> None:
        """Type a prompt into an agent's terminal; Enter when it is in the input box, as else that is lost."""
        self._told[name] = time.time()
        socket = self.fleet.socket(name)
        (pane,) = tmux.panes(socket, name, 30)
        tmux.run(socket, ["send-keys", "-t", pane.pane, "-l", text], 30)
        shown = f"{name} has {text!r} in its input box"
        wait_for(shown, lambda: in_input_box(self.fleet.screen(name), text), LONGEST_SECS)
        tmux.run(socket, ["send-keys", "-t", pane.pane, "Enter"], 30)

    def await_state(self, name: str, *states: str, timeout: float = LONGEST_SECS) -> dict[str, Any]:
        """Wait until an agent is in one of these states, and return its view.

        It is idle when it has become so since it was told something: until the next look at it, it is still
        said to be idle as it was before.
        """

        def look() -> dict[str, Any] | None:
            found = self.fleet.view(name)
            stale = found["state"] == "idle" and (found["state_at"] or 0) < self._told.get(name, 0)
            return found if found["state"] in states and not stale else None

        try:
            return wait_for(f"{name} is {' or '.join(states)}", look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.fleet.view(name)}\n{self.fleet.screen(name)}") from None

    def await_heard(self, key: str, *prompts: str) -> None:
        """Wait until the mock was asked, by an account, in a conversation in which just this was said."""

        def heard() -> list[tuple[str, ...]]:
            return [asked.prompts for asked in self.mock.asked(key) if asked.conversation]

        try:
            wait_for(f"a conversation {prompts}", lambda: prompts in heard(), LONGEST_SECS)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthese were heard: {heard()}") from None

    def tools(self, name: str, program: str = "tail") -> list[process_table.ProcessId]:
        """Return the running processes of this program below an agent, or that outlived it."""
        launch = self.fleet.launches(name)[0]
        with self.fleet.store() as store:
            row = store.agent(name)
        assert row is not None and row.generation == launch.generation
        found = []
        for process in process_table.carrying(row.launch or ""):
            argv = proc.command_line(process.pid).split(b"\0")
            if argv[0].rpartition(b"/")[2].decode() == program:
                found.append(process)
        return found
