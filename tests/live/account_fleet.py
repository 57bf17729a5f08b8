"""Accounts for a live fleet: stand-ins that pass for Claude Code, in homes that share their conversations.

A stand-in with `--claude` keeps status file and transcript as Claude Code does, so that agents of the runtime
`claude` run it, `AgentStates` sees what it does, and each account can resume the conversations of the others.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from circus_failover import standin
from tests.clients.accounts import CLAUDE_SHARED, make_claude_home
from tests.live.fleet import STANDIN, Fleet, wait_for

CLIENT = f"{STANDIN} --claude"


class AccountFleet:
    """A fleet, with accounts `one`, `two`, ... of the runtime `claude`."""

    def __init__(self, fleet: Fleet, *names: str, **account: Any) -> None:
        """Make the homes, link what they share, and enter them in the settings.

        Args:
            fleet: not started yet.
            names: the accounts.
            account: more keys of each account in failover.yaml, as `max_agents`.
        """
        self.fleet, self.shared = fleet, fleet.folder / "shared"
        self.homes: dict[str, Path] = {}
        entries = []
        for name in names or ("one", "two"):
            home = make_claude_home(fleet.folder / name, name, "http://127.0.0.1:1", [fleet.work])
            home.link(self.shared, CLAUDE_SHARED)
            self.homes[name] = home.folder
            entries.append({"name": name, "runtime": "claude", "home": str(home.folder), **account})
        fleet.settings.update(accounts=entries, shared={"root": str(self.shared)})

    def agent(self, name: str, account: str = "one", client: str = CLIENT, **options: str) -> None:
        """Add an agent; option names as in `Fleet.agent`."""
        more = {"failover__runtime": "claude", "failover__command": client, "failover__account": account}
        self.fleet.agent(name, **{**more, **options})

    # -- limits ----------------------------------------------------------------------------------------

    def limit(self, account: str, secs: float = 3600.0, kind: str = "five_hour") -> int:
        """Let an account refuse every turn from now on, and return until when, in epoch seconds.

        Args:
            account: its name.
            secs: for how long; 0: until it is lifted, with an unknown reset.
            kind: one of `standin.WINDOWS` or `standin.REFUSALS`.
        """
        until = int(time.time() + secs) if secs else 0
        _put(self.homes[account] / standin.LIMIT_FILE, f"{until} {kind}\n")
        return until

    def lift(self, account: str) -> None:
        """Let an account answer again."""
        (self.homes[account] / standin.LIMIT_FILE).unlink(missing_ok=True)

    def used(self, account: str, percent: float, secs: float = 3600.0, window: str = "five_hour") -> None:
        """Let an account's agents tell, with their next answer, how much of a window is used."""
        line = f"{window} {percent:g} {int(time.time() + secs)}\n"
        _put(self.homes[account] / standin.USAGE_FILE, line)

    # -- conversations ---------------------------------------------------------------------------------

    def transcripts(self) -> list[Path]:
        """Return every conversation there is."""
        return sorted((self.shared / "projects").glob("*/*.jsonl"))

    def entries(self, conversation: str | None) -> list[dict[str, Any]]:
        """Return what a conversation holds, in order."""
        found = [path for path in self.transcripts() if path.stem == conversation]
        return [json.loads(line) for path in found for line in path.read_text().splitlines()]

    def prompts(self, conversation: str | None) -> list[str]:
        """Return what was said to a conversation, in order: a turn that was sent twice is there twice."""
        return [said["message"]["content"] for said in self.entries(conversation) if said["type"] == "user"]

    def answers(self, conversation: str | None) -> list[str]:
        """Return what was answered, without refusals.

        `done: TEXT` by the launch that was told it, `finished: TEXT` by a later one.
        """
        return [
            said["message"]["content"][0]["text"]
            for said in self.entries(conversation)
            if said["type"] == "assistant" and not said.get("isApiErrorMessage")
        ]

    def refusals(self, conversation: str | None) -> list[str]:
        """Return the texts by which an account refused a turn of a conversation."""
        return [
            said["message"]["content"][0]["text"]
            for said in self.entries(conversation)
            if said.get("isApiErrorMessage")
        ]

    def writers(self, conversation: str | None) -> list[tuple[str, int]]:
        """Return who says that it has a conversation open and runs: account and pid."""
        found = []
        for name, home in self.homes.items():
            for path in (home / "sessions").glob("*.json"):
                try:
                    said = json.loads(path.read_text())
                except FileNotFoundError:  # it has ended just now
                    continue
                if said["sessionId"] == conversation and os.path.exists(f"/proc/{said['pid']}"):
                    found.append((name, int(said["pid"])))
        return found

    def account_of(self, name: str) -> str:
        """Return the account whose home an agent's process really uses."""
        pid = self.fleet.view(name)["pid"]
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        home = next(one[18:].decode() for one in variables if one.startswith(b"CLAUDE_CONFIG_DIR="))
        return next(account for account, folder in self.homes.items() if str(folder) == home)

    def await_state(self, name: str, state: str) -> dict[str, Any]:
        """Wait until circusd shows an agent in a state, and return its view. Needs `fleet.states()`."""

        def look() -> dict[str, Any] | None:
            view = self.fleet.view(name)
            return view if view["state"] == state else None

        return wait_for(f"{name} is {state}", look)


def _put(file: Path, text: str) -> None:
    """Write a file that agents read at any moment: all of it is there, or nothing."""
    new = file.with_suffix(".tmp")
    new.write_text(text)
    new.rename(file)
