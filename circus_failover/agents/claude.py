"""The `claude` runtime: how Claude Code is started and continued, and where it shows what it does.

Facts are of Claude Code 2.1.329 unless a version is named, and hold in `tests/clients/`. What its files say
is read in `claude_files`, `claude_transcript` and `claude_home`, its screen in `claude_screen`, and put
together in `claude_look`; here is what the supervisor asks.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import process_table
from circus_failover.agents import (
    claude_files,
    claude_home,
    claude_screen,
    claude_transcript,
    claude_turns,
    claude_usage,
)
from circus_failover.agents.claude_files import Status, text
from circus_failover.agents.claude_look import STATES, Look, reported, session_of
from circus_failover.agents.claude_screen import Shown
from circus_failover.agents.claude_transcript import Tail
from circus_failover.agents.runtime import Boot, Dialog, HomeReport, LongestWait, Observation, Place, Writer
from circus_failover.policy.continuing import OpenTurn, TurnEnd
from circus_failover.process_table import ProcessId
from circus_failover.words import BootStage, Source

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings

TAILS_MAX = 1024
SPEAKS_SECS = 10.0
"""A client whose status file says nothing after so long is one of a version that has none, or another one."""

_CHOSEN = "the supervisor chooses the conversation, by its id"
_NO_SCREEN = "it has no screen that could be watched"
_ELSEWHERE = "it would run somewhere else than in the agent's session"


class ClaudeRuntime:
    """Claude Code, as it is used in a terminal."""

    name = "claude"
    program: str | None = "claude"
    dialogs: tuple[Dialog, ...] = claude_screen.DIALOGS
    tells = True
    owned_arguments: Mapping[str, str] = {
        "--continue": _CHOSEN + ": two agents in one directory would become one",
        "-c": _CHOSEN + ": two agents in one directory would become one",
        "--resume": _CHOSEN,
        "-r": _CHOSEN,
        "--session-id": _CHOSEN,
        "--fork-session": _CHOSEN,
        "--from-pr": _CHOSEN,
        "--teleport": _CHOSEN,
        "--print": _NO_SCREEN,
        "-p": _NO_SCREEN,
        "--no-session-persistence": "a conversation that is not saved cannot be resumed",
        "--bg": _ELSEWHERE,
        "--background": _ELSEWHERE,
        "--cloud": _ELSEWHERE,
        "--desktop": _ELSEWHERE,
        "--tmux": _ELSEWHERE,
        "--version": "it ends at once",
        "-v": "it ends at once",
        "--help": "it ends at once",
        "-h": "it ends at once",
    }
    switches: frozenset[str] = frozenset(
        (
            *("--allow-dangerously-skip-permissions", "--ax-screen-reader", "--bare", "--brief", "--chrome"),
            *("--dangerously-skip-permissions", "--disable-slash-commands", "--ide", "--no-chrome"),
            *(
                "--exclude-dynamic-system-prompt-sections",
                "--restricted",
                "--safe-mode",
                "--strict-mcp-config",
            ),
            "--verbose",
        )
    )
    valued_arguments: frozenset[str] = frozenset(
        (
            *("--agent", "--agents", "--append-system-prompt", "--autocompact", "--debug-file", "--effort"),
            *("--environment", "--fallback-model", "--model", "--name", "-n", "--permission-mode"),
            *("--plugin-dir", "--plugin-url", "--remote-control-session-name-prefix", "--setting-sources"),
            *("--settings", "--system-prompt", "--system-prompt-snapshot"),
        )
    )
    # What Claude Code gives to the programs that it runs, beside what people set themselves.
    surrounding: tuple[str, ...] = (
        "CLAUDECODE",
        "CLAUDE_CODE_*",
        claude_files.HOME_VARIABLE,
        "CLAUDE_PID",
        "CLAUDE_EFFORT",
        "AI_AGENT",
        "NoDefaultCurrentDirectoryInExePath",
    )

    def __init__(self) -> None:
        self._tails: dict[Path, tuple[tuple[int, ...], Tail]] = {}

    # -- starting it -----------------------------------------------------------------------------------

    def home(self, agent: AgentSettings, variables: Mapping[str, str]) -> Path | None:
        """Return its account's home; without one, what its own variables name, or `~/.claude`."""
        if agent.account is not None:
            return agent.account.home
        named = variables.get(claude_files.HOME_VARIABLE, "")
        return Path(named) if os.path.isabs(named) else claude_files.default_home(variables)

    def environment(self, home: Path, variables: Mapping[str, str]) -> Mapping[str, str]:
        """Return `CLAUDE_CONFIG_DIR`; nothing for `~/.claude`.

        Named by that variable, `~/.claude` would be another home: its config file would be the one inside it,
        and not `~/.claude.json`, which has the login, what is trusted, and the rest of what was agreed to.
        """
        return {} if claude_files.is_default(home, variables) else {claude_files.HOME_VARIABLE: str(home)}

    def fresh(self, agent: AgentSettings, conversation: str) -> tuple[str, ...]:
        """Return the argv that begins a conversation under this id."""
        return (*agent.command, *agent.args, *claude_usage.arguments(agent), "--session-id", conversation)

    def resume(self, agent: AgentSettings, conversation: str, home: Path | None) -> tuple[str, ...] | None:
        """Return the argv that continues a conversation; None when nothing was said in it, or it is no UUID.

        Without a transcript the client exits, and anything but a UUID opens a picker. It finds a transcript
        also of another working directory.
        """
        path = claude_files.transcript(home, agent.working_dir, conversation) if home is not None else None
        if path is None or not claude_files.has_turns(path):
            return None
        return (*agent.command, *agent.args, *claude_usage.arguments(agent), "--resume", conversation)

    def check_home(
        self, agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
    ) -> HomeReport:
        """Say whether the files of an account home let a launch do what it should. Reads files only."""
        return claude_home.check(agent, home, variables, links)

    # -- its start -------------------------------------------------------------------------------------

    def boot(self, place: Place) -> Boot:
        """Say how far a start has come: by the status file, else the hooks, else the screen.

        A dialog that is open makes it not ready, whatever else says that it is.
        """
        screen = place.screen()
        shown = claude_screen.read(screen.rows) if screen is not None else Shown()
        status = claude_files.status(place.home, place.process)
        started = reported(place, "SessionStart")
        conversation, evidence = None, ""
        if status is not None and status.word in STATES:
            conversation, evidence = status.conversation, f"{Source.STATUS_FILE}: {status.word}"
        elif _speaks_late(place, status):
            if started is not None:
                conversation, evidence = session_of(started), f"{Source.HOOK}: SessionStart"
            elif shown.box:
                evidence = f"{Source.SCREEN}: input box"
        if shown.menu and shown.dialog in {dialog.name for dialog in self.dialogs}:
            asks = f"{Source.SCREEN}: {shown.text}"
            return Boot(BootStage.DIALOG, asks, shown.dialog, shown.chosen, conversation)
        if not evidence:
            if shown.failed:
                return Boot(BootStage.FAILED, f"{Source.SCREEN}: {shown.failed}")
            return Boot(BootStage.WAIT, f"{Source.SCREEN}: asks {shown.text}" if shown.menu else "")
        if place.conversation and conversation and conversation.lower() != place.conversation.lower():
            wrong = f"{evidence} of conversation {conversation}, not of {place.conversation}"
            return Boot(BootStage.WAIT, wrong, conversation=conversation)
        asking = status is not None and (status.word, status.waiting_for) == ("waiting", "dialog open")
        if asking and shown.dialog is None:
            return Boot(BootStage.WAIT, f"{evidence} for a dialog: {shown.text}", conversation=conversation)
        return Boot(BootStage.READY, evidence, conversation=conversation)

    # -- what it does ----------------------------------------------------------------------------------

    def look(self, place: Place) -> Observation:
        """Return what is seen of a running agent: files first, the screen where they do not tell."""
        return Look(place, self.tail).observation()

    def tail(self, path: Path) -> Tail:
        """Return what the end of a transcript says; read anew only when that has changed."""
        try:
            found = os.stat(path)
        except OSError:
            return Tail()
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._tails.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        fresh = claude_transcript.tail(path)
        if len(self._tails) >= TAILS_MAX:
            self._tails.clear()
        self._tails[path] = (stamp, fresh)
        return fresh

    def open_turn(self, home: Path, working_dir: Path, conversation: str) -> OpenTurn | None:
        """Return what its transcript says of its last turn; without one nothing was said in it."""
        path = claude_files.transcript(home, working_dir, conversation)
        return OpenTurn(TurnEnd.NONE) if path is None else claude_turns.open_turn(path)

    def longest_wait(self, home: Path | None, variables: Mapping[str, str]) -> LongestWait | None:
        """Return how long one command of its shell tool may run, which writes nothing meanwhile.

        At most `BASH_MAX_TIMEOUT_MS`, and never less than the default, `BASH_DEFAULT_TIMEOUT_MS`: 600 and
        120 s where they are not set. What `env` in `settings.json` says goes before the environment.
        """
        said = claude_files.load(home / "settings.json")[0] if home is not None else {}
        env = claude_files.mapping(said.get("env"))
        longest, otherwise = (
            _milliseconds(env.get(name), _milliseconds(variables.get(name), default))
            for name, default in (("BASH_MAX_TIMEOUT_MS", 600_000), ("BASH_DEFAULT_TIMEOUT_MS", 120_000))
        )
        what = "a command of its shell tool (BASH_MAX_TIMEOUT_MS)"
        return LongestWait(max(longest, otherwise) / 1000, what)

    # -- its processes ---------------------------------------------------------------------------------

    def writers(self, homes: Sequence[Path], conversation: str) -> tuple[Writer, ...]:
        """Return the running processes whose status files say that they are in a conversation."""
        found: dict[ProcessId, Writer] = {}
        for home in homes:
            for path, pid, record in claude_files.statuses(home):
                if text(record.get("sessionId")).lower() != conversation.lower():
                    continue
                process = claude_files.owner(record, pid)
                if process is not None and process_table.may_run(process):
                    found.setdefault(process, Writer(process, home, str(path)))
        return tuple(found.values())

    def stale_files(self, homes: Sequence[Path], process: ProcessId) -> tuple[Path, ...]:
        """Return the status files of a process that is proven gone."""
        if process_table.may_run(process):
            return ()
        paths = dict.fromkeys(home / "sessions" / f"{process.pid}.json" for home in homes)
        return tuple(
            path for path in paths if claude_files.owner(claude_files.load(path)[0], process.pid) == process
        )

    def background(self, home: Path) -> ProcessId | None:
        """Know of none: what runs in the background ends with its agent."""
        return None


def _milliseconds(said: object, otherwise: int) -> int:
    """Return what a variable says: the digits that it begins with, where they are not zero."""
    digits = re.match(r"\s*\+?(\d{1,15})", claude_files.text(said))
    return int(digits[1]) if digits is not None and int(digits[1]) > 0 else otherwise


def _speaks_late(place: Place, status: Status | None) -> bool:
    """Say whether the status file should have said something long ago: it comes a moment after the screen."""
    begun = status.begun if status is not None and status.begun is not None else place.launched_at
    return time.time() - begun > SPEAKS_SECS
