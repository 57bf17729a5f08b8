"""The `codex` runtime: how Codex is started and continued, and where it shows what it does.

Facts are of Codex 0.169.0 unless a version is named, and hold in `tests/clients/`. What its files say is read
in `codex_rollout` and `codex_home`, its processes in `codex_processes`, its screen in `codex_screen`; here
they are put together. Evidence, the most trusted first: the lock on a conversation, which a process holds
from the moment in which it takes prompts; the transcript; the title; the screen. No two of them
are written at the same moment; one that contradicts a more trusted one for some seconds is believed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import process_table
from circus_failover.agents import codex_home, codex_processes, codex_rollout, codex_screen, codex_turns
from circus_failover.agents.codex_processes import Held
from circus_failover.agents.codex_rollout import Turn
from circus_failover.agents.codex_screen import Seen
from circus_failover.agents.runtime import Boot, Dialog, HomeReport, LongestWait, Observation, Place, Writer
from circus_failover.policy.continuing import OpenTurn, TurnEnd
from circus_failover.policy.health import Sign
from circus_failover.process_table import LINUX, ProcessId
from circus_failover.words import BootStage, Source, State

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings

SETTLED_SECS = 5.0
"""So long a screen may be behind the transcript, or before it; a contradiction that lasts is believed."""
RESCAN_SECS = 10.0
"""So long what a client has open is believed, while it has as many files open as before."""
AHEAD_SECS = 60.0
"""A time further in the future than this is none: it would make an agent busy for ever."""
PLACES_MAX = 1024
_NO_DAEMON = "--no-daemon"
_RESUMED_BY = "the supervisor chooses the conversation, by its id"
_NO_SCREEN = "it has no screen that could be watched"


@dataclass(frozen=True)
class _Known:
    """What was found out about one client, which is dear to find out: it has dozens of files and threads."""

    held: Held
    opened: int
    """How many files it had open then."""
    at: float
    turn_at: float | None = None
    """The end of the turn after which its tools were looked for: none begins between turns."""
    tools: tuple[ProcessId, ...] = ()


class CodexRuntime:
    """Codex, as it is used in a terminal."""

    name = "codex"
    program: str | None = "codex"
    dialogs: tuple[Dialog, ...] = codex_screen.DIALOGS
    tells = True
    owned_arguments: Mapping[str, str] = {
        "resume": _RESUMED_BY,
        "fork": _RESUMED_BY,
        "--last": _RESUMED_BY + ": two agents in one directory would become one",
        "--all": _RESUMED_BY,
        "agents": _RESUMED_BY,
        "exec": _NO_SCREEN,
        "e": _NO_SCREEN,
        "review": _NO_SCREEN,
        "app-server": _NO_SCREEN,
        "exec-server": _NO_SCREEN,
        "remote-control": _NO_SCREEN,
        "--remote": "the client would run elsewhere, and nothing of it could be seen here",
        "-C": "the watcher's working_dir says where it works",
        "--cd": "the watcher's working_dir says where it works",
        "--worktree": "each launch would work in another directory",
    }
    switches: frozenset[str] = frozenset(
        (
            "--approve-for-me",
            "--dangerously-bypass-approvals-and-sandbox",
            "--dangerously-bypass-hook-trust",
            "--no-alt-screen",
            "--no-daemon",
            "--oss",
            "--search",
            "--strict-config",
        )
    )
    valued_arguments: frozenset[str] = frozenset(
        (
            *(
                "-a",
                "--ask-for-approval",
                "-c",
                "--config",
                "-m",
                "--model",
                "-p",
                "--profile",
                "-s",
                "--sandbox",
            ),
            *("--add-dir", "--disable", "--enable", "--local-provider", "--remote-auth-token-env"),
        )
    )
    # What its shell tool gives to commands, and CODEX_HOME, which leads to the surrounding client's account.
    surrounding: tuple[str, ...] = (
        "CODEX_HOME",
        "CODEX_SQLITE_HOME",
        "CODEX_THREAD_ID",
        "CODEX_SESSION_ID",
        "CODEX_TOOL_CALL_ID",
        "CODEX_CI",
        "CODEX_VERSION",
        "CODEX_SANDBOX*",
        "CODEX_PERMISSION_PROFILE",
        "CODEX_MANAGED_*",
        "CODEX_NETWORK_PROXY_*",
        "CODEX_SNAPSHOT_*",
        "CODEX_INTERNAL_*",
        "CODEX_APPLY_PATCH_PRESERVE_LINE_ENDINGS",
    )

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[ProcessId, _Known] = {}

    # -- how it is started -------------------------------------------------------------------------------

    def home(self, agent: AgentSettings, variables: Mapping[str, str]) -> Path | None:
        """Return its account's home, else `~/.codex`."""
        if agent.account is not None:
            return agent.account.home
        own = variables.get("HOME")
        return Path(own if own else os.path.expanduser("~")) / ".codex"

    def environment(self, home: Path, variables: Mapping[str, str]) -> Mapping[str, str]:
        """Return `CODEX_HOME`; said of the default home too, it changes nothing, but it must exist then."""
        return {"CODEX_HOME": str(home)}

    def fresh(self, agent: AgentSettings, conversation: str) -> tuple[str, ...]:
        """Return the argv of a new conversation; Codex chooses its id, which `boot` learns."""
        return (*agent.command, *_alone(agent), *agent.args)

    def resume(self, agent: AgentSettings, conversation: str, home: Path | None) -> tuple[str, ...] | None:
        """Return the argv that continues a conversation; None without a transcript in which there is a turn.

        The directory is said, since Codex asks which one where it has another one in its transcript.
        """
        path = codex_rollout.find(home, conversation) if home is not None else None
        if path is None or not codex_rollout.prompted(path):
            return None
        where = ("-C", str(agent.working_dir))
        return (*agent.command, "resume", conversation, *_alone(agent), *where, *agent.args)

    # -- before a launch ---------------------------------------------------------------------------------

    def check_home(
        self, agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
    ) -> HomeReport:
        """Return what the files of an account home say."""
        return codex_home.check(agent, home, variables, links)

    def background(self, home: Path) -> ProcessId | None:
        """Return the background server of a home, which outlives its agents; None when none runs."""
        return codex_processes.daemon(home)

    def open_turn(self, home: Path, working_dir: Path, conversation: str) -> OpenTurn | None:
        """Return what its transcript says of its last turn; without one nothing was said in it."""
        path = codex_rollout.find(home, conversation)
        return OpenTurn(TurnEnd.NONE) if path is None else codex_turns.open_turn(path)

    def longest_wait(self, home: Path | None, variables: Mapping[str, str]) -> LongestWait | None:
        """Know of none: how long a tool may run is the model's to say, each time."""
        return None

    def writers(self, homes: Sequence[Path], conversation: str) -> tuple[Writer, ...]:
        """Return the running processes that have a conversation open, in any of these homes."""
        return codex_processes.writers(homes, conversation)

    def stale_files(self, homes: Sequence[Path], process: ProcessId) -> tuple[Path, ...]:
        """Return none: its locks end with their process, and a lock file alone says nothing."""
        return ()

    # -- while it starts ---------------------------------------------------------------------------------

    def boot(self, place: Place) -> Boot:
        """Say how far a start has come.

        Its input box is drawn up to 2 s before it is ready, then dialogs follow, then the lock on the
        conversation is taken: from that moment on what is typed is kept and sent.
        """
        held = self._held(place)
        conversation = _conversation(held, place.conversation)
        screen = place.screen()
        if screen is None:
            if not held.locks:
                return Boot(BootStage.WAIT, "its screen cannot be seen")
            return Boot(BootStage.READY, _lock_of(held, conversation), conversation=conversation)
        seen = codex_screen.read(screen, self._clock())
        if seen.fatal:
            return Boot(BootStage.FAILED, f"{Source.SCREEN}: {seen.fatal}", conversation=conversation)
        if seen.dialog == "open-elsewhere":
            return Boot(
                BootStage.FAILED,
                f"{Source.SCREEN}: {codex_screen.OPEN_ELSEWHERE}",
                conversation=conversation,
            )
        if seen.dialog is not None:
            evidence = f"{Source.SCREEN}: {seen.what}"
            return Boot(BootStage.DIALOG, evidence, seen.dialog, seen.chosen, conversation)
        unknown = seen.state is None or (seen.state is State.WAITING and seen.what == "dialog")
        if held.locks and not unknown:
            return Boot(BootStage.READY, _lock_of(held, conversation), conversation=conversation)
        if seen.composed and not LINUX:
            # Where open files cannot be listed, the line about the model is what is drawn with the lock.
            return Boot(BootStage.READY, f"{Source.SCREEN}: its input box", conversation=conversation)
        return Boot(BootStage.WAIT, f"{Source.SCREEN}: {seen.what}" if seen.what else "")

    # -- while it runs -----------------------------------------------------------------------------------

    def look(self, place: Place) -> Observation:
        """Return what is seen of a running agent."""
        held = self._held(place)
        conversation = _conversation(held, place.conversation)
        path = held.rollouts.get(conversation or "")
        if path is None and conversation is None and place.conversation is not None:
            # A background server has it open, or what is open cannot be listed.
            path = codex_rollout.find(place.home, place.conversation, everywhere=False)
            conversation = place.conversation if path is not None else None
        turn = codex_rollout.read(path) if path is not None else Turn()
        signs = [sign for sign in (_failed(turn), _answered(turn)) if sign is not None]
        state = self._state(place, held, turn)
        return Observation(tuple(signs + state), conversation, self._past(turn.newest_at), turn.usage)

    def _state(self, place: Place, held: Held, turn: Turn) -> list[Sign]:
        """Return what it does now, by the best evidence that is not contradicted by another."""
        now = self._clock()
        here = turn.at is not None and turn.at >= place.launched_at
        seen = _seen(place, now)
        if turn.state is State.IDLE and here:
            return self._after_a_turn(place, held, turn, seen, now)
        if turn.state is State.WORKING and here:
            return _in_a_turn(turn, seen, now)
        return _on_screen(seen)

    def _after_a_turn(self, place: Place, held: Held, turn: Turn, seen: Seen, now: float) -> list[Sign]:
        assert turn.at is not None
        if seen.state is State.WAITING:
            # One may open by itself, as `Approaching rate limits` does, and takes what is typed.
            return _on_screen(seen)
        if seen.state is State.WORKING and now - turn.at > SETTLED_SECS:
            # A turn may have begun in a way that is not known here.
            return _on_screen(seen)
        if self._runs_a_tool(place, held, turn):
            return [Sign(Source.TRANSCRIPT, turn.at, State.WORKING, "background terminal")]
        if any(_sub_agent_works(path, place.launched_at) for path in held.rollouts.values()):
            return [Sign(Source.TRANSCRIPT, turn.at, State.WORKING, "sub-agent")]
        return [Sign(Source.TRANSCRIPT, turn.at, State.IDLE)]

    def _past(self, at: float | None) -> float | None:
        return at if at is not None and at <= self._clock() + AHEAD_SECS else None

    def _runs_a_tool(self, place: Place, held: Held, turn: Turn) -> bool:
        known = self._of(place)
        if known is not None and known.turn_at == turn.at:
            return any(map(process_table.may_run, known.tools))
        found = codex_processes.tools(held.process)
        if known is not None:
            self._remember(place, replace(known, turn_at=turn.at, tools=found))
        return bool(found)

    def _held(self, place: Place) -> Held:
        """Return what the client has open, as remembered while nothing speaks against that."""
        known, now = self._of(place), self._clock()
        if known is not None and 0 <= now - known.at < RESCAN_SECS:
            opened = codex_processes.open_count(known.held.process)
            if opened == known.opened and (opened or known.held.rollouts):
                return known.held
        process = known.held.process if known is not None else place.process
        opened = codex_processes.open_count(process)
        found = codex_processes.held(process)
        if not (found.locks or found.rollouts):
            found = codex_processes.client(place.process)
            opened = codex_processes.open_count(found.process)
        if found.locks or found.rollouts:
            before = (
                known if known is not None and known.held.process == found.process else _Known(found, 0, 0)
            )
            self._remember(place, replace(before, held=found, opened=opened, at=now))
        return found

    def _of(self, place: Place) -> _Known | None:
        with self._lock:
            return self._known.get(place.process)

    def _remember(self, place: Place, known: _Known) -> None:
        with self._lock:
            self._known[place.process] = known
            while len(self._known) > PLACES_MAX:
                self._known.pop(next(iter(self._known)))


def _alone(agent: AgentSettings) -> tuple[str, ...]:
    """Return what keeps the background server off, unless the operator says something about it.

    With one, the conversation is that server's, which goes on with it when the agent is killed. This also
    lets one alone that runs; `-c features.daemon_auto_start=false` opens a dialog about it then.
    """
    arguments = (*agent.command, *agent.args)
    if any(
        word.partition("=")[0] in (_NO_DAEMON, "--remote") or codex_home.DAEMON in word for word in arguments
    ):
        return ()
    # Without an account, it is not known here which home it is.
    home = agent.account.home if agent.account is not None else None
    settings = codex_home.config(home, arguments) if home is not None else codex_home.Config()
    return () if settings.table("features").get(codex_home.DAEMON) is True else (_NO_DAEMON,)


def _conversation(held: Held, recorded: str | None) -> str | None:
    """Return the conversation that a client is in: of several, the one that was written to last.

    After `/new` it has both open. Those of its sub-agents are none; and of one that has no transcript yet,
    nothing would be lost.
    """
    paths = {name: held.rollouts.get(name) for name in {*held.locks, *held.rollouts}}
    own = [name for name, path in paths.items() if path is None or not codex_rollout.head(path).sub_agent]
    written = [(stamp, name) for name in own if (stamp := _written(paths[name])) is not None]
    if written:
        return max(written)[1]
    if recorded in own:
        return recorded
    # Ids begin with their time (UUIDv7, RFC 9562).
    return max(own, default=None)


def _written(path: Path | None) -> int | None:
    try:
        return os.stat(path).st_mtime_ns if path is not None else None
    except OSError:
        return None


def _lock_of(held: Held, conversation: str | None) -> str:
    return f"lock: {held.locks.get(conversation or '', next(iter(held.locks.values())))}"


def _sub_agent_works(path: Path, launched_at: float) -> bool:
    if not codex_rollout.head(path).sub_agent:
        return False
    turn = codex_rollout.read(path)
    return turn.state is State.WORKING and turn.at is not None and turn.at >= launched_at


def _failed(turn: Turn) -> Sign | None:
    return Sign(Source.TRANSCRIPT, turn.fault_at, fault=turn.fault) if turn.fault is not None else None


def _answered(turn: Turn) -> Sign | None:
    return Sign(Source.TRANSCRIPT, turn.answered_at, answered=True) if turn.answered_at is not None else None


def _seen(place: Place, now: float) -> Seen:
    screen = place.screen()
    return codex_screen.read(screen, now) if screen is not None else Seen()


def _on_screen(seen: Seen) -> list[Sign]:
    if seen.state is None:
        return []
    source = Source.TITLE if seen.by_title else Source.SCREEN
    return [Sign(source, None, seen.state, seen.what), *_retries(seen)]


def _retries(seen: Seen) -> list[Sign]:
    return [Sign(Source.SCREEN, None, fault=seen.retrying)] if seen.retrying is not None else []


def _in_a_turn(turn: Turn, seen: Seen, now: float) -> list[Sign]:
    """Return what a client does whose transcript says that a turn is on."""
    assert turn.at is not None
    if seen.state is State.WAITING:
        what = f"{seen.what}: {turn.what}" if seen.what == "permission" and turn.what else seen.what
        return _on_screen(replace(seen, what=what))
    if seen.state is State.IDLE and now - (turn.newest_at or turn.at) > SETTLED_SECS:
        # Its end may be written in a way that is not known here.
        return _on_screen(seen)
    return [Sign(Source.TRANSCRIPT, turn.at, State.WORKING, turn.what), *_retries(seen)]
