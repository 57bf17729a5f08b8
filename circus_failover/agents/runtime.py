"""What the supervisor asks of a runtime, and the values that go to and fro; each runtime is one file here.

A runtime knows one client: how it is started, what it asks at its start, which files tell what it does. It
only reads: files of the account home, `/proc`, and one screen that it is handed. It starts nothing, ends
nothing and types nothing, and decides nothing about its agent: `policy.health` weighs what it sees.
All of a client's formats are undocumented: what is missing or new is left out, and never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from circus_failover.policy.accounts import Usage
from circus_failover.policy.continuing import OpenTurn
from circus_failover.policy.health import Sign
from circus_failover.process_table import ProcessId
from circus_failover.words import BootStage, Credentials

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings


@dataclass(frozen=True)
class Screen:
    """What a terminal shows now: its visible rows, as they are, and its title."""

    rows: tuple[str, ...]
    title: str = ""


def no_screen() -> Screen | None:
    """Say that no screen can be looked at."""
    return None


@dataclass(frozen=True)
class Place:
    """One running launch, and where it can be looked at."""

    process: ProcessId
    """The agent's own process: what the pane runs, or what that became by exec."""
    home: Path
    """The account home its client uses."""
    working_dir: Path
    conversation: str | None
    """As recorded; None: the client chose it, and nobody has learned it yet."""
    launched_at: float
    """Epoch seconds of the launch; what is older says nothing about it."""
    events: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the client's hooks reported of this launch: the newest by the hook's name, each with `at`."""
    screen: Callable[[], Screen | None] = no_screen
    """Looks at the terminal, which costs a call of tmux; None: it cannot be told."""


@dataclass(frozen=True)
class Observation:
    """What was seen of one agent."""

    signs: tuple[Sign, ...] = ()
    conversation: str | None = None
    """The conversation its client is in now; None: that cannot be told."""
    last_activity: float | None = None
    """Epoch seconds of the newest entry of its transcript or status; None: that cannot be told."""
    usage: tuple[Usage, ...] = ()
    """How much of its account's windows is used, as far as its client says."""
    answered_at: float | None = None
    """Epoch seconds of the newest answer of this launch among the signs; `observing` fills it in."""


@dataclass(frozen=True)
class Dialog:
    """What a client may ask at its start, and the words that `failover.dialogs` may answer it with."""

    name: str
    asks: str
    """A clause for a message: `whether the working directory is trusted`."""
    answers: Mapping[str, tuple[str, ...]]
    """The tmux keys that give each answer; empty: a person has to answer it."""
    otherwise: str = ""
    """What else an operator can do about it, as an imperative."""


@dataclass(frozen=True)
class Boot:
    """How far a start has come."""

    stage: BootStage
    evidence: str = ""
    """What says so: `status-file: idle`."""
    dialog: str | None = None
    """The dialog that is open, when the stage is `dialog`."""
    chosen: str | None = None
    """Of a dialog that is a menu: which answer the cursor is at, as one of the dialog's words."""
    conversation: str | None = None
    """The conversation that the client is in; None: that cannot be told yet."""


@dataclass(frozen=True)
class HomeProblem:
    """Why a launch with this account home would not do what it should."""

    key: str
    """What is wrong: `login`, `trust`, `link projects`, `env_file`, ..."""
    found: str
    expected: str
    remedy: str
    refuses: bool = True
    """Whether a launch is refused for it; else it is only shown."""


@dataclass(frozen=True)
class HomeReport:
    """What the files of an account home say."""

    credentials: Credentials
    how: str
    """By what it is logged in, without the secret: `login`, `api key (env_file)`; or why it is unknown."""
    problems: tuple[HomeProblem, ...] = ()


@dataclass(frozen=True)
class Writer:
    """A process that has a conversation open."""

    process: ProcessId
    home: Path
    evidence: str
    """What says so: the path of a file."""


@dataclass(frozen=True)
class LongestWait:
    """For how long an agent may wait for something, and do nothing meanwhile."""

    secs: float
    what: str
    """What it waits for, and what sets that."""


class Runtime(Protocol):
    """What the supervisor asks of a runtime."""

    name: str
    program: str | None
    """What runs when `failover.command` is not set; None: it must be set."""
    dialogs: tuple[Dialog, ...]
    tells: bool
    """Whether it can tell what its agents do; if not, their state is `unknown`, and that means nothing."""
    owned_arguments: Mapping[str, str]
    """Arguments that an operator may not give, since the supervisor does, each with the reason."""
    switches: frozenset[str]
    """Options of the client without a value, so that a word behind one is something else."""
    valued_arguments: frozenset[str]
    """Options of the client that take one value as the next word."""
    surrounding: tuple[str, ...]
    """Variables, or prefixes ending in `*`, by which a surrounding client would leak into an agent."""

    def home(self, agent: AgentSettings, variables: Mapping[str, str]) -> Path | None:
        """Return the home that its client will use; None when the runtime knows none.

        Args:
            agent: the agent as configured.
            variables: its environment, without the account's.
        """

    def environment(self, home: Path, variables: Mapping[str, str]) -> Mapping[str, str]:
        """Return the variables that lead the client to its home."""

    def fresh(self, agent: AgentSettings, conversation: str) -> tuple[str, ...]:
        """Return the argv that begins a conversation: under this id, where the client allows to choose it."""

    def resume(self, agent: AgentSettings, conversation: str, home: Path | None) -> tuple[str, ...] | None:
        """Return the argv that continues a conversation, or None when there is nothing to continue."""

    def check_home(
        self, agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
    ) -> HomeReport:
        """Say whether the files of an account home let a launch do what it should. Reads files only.

        Args:
            agent: whose launch; None: whatever holds for every agent of the account.
            home: the account home.
            variables: the environment that its agents get, with those of `env_file`.
            links: names that must not be dangling links.
        """

    def boot(self, place: Place) -> Boot:
        """Say how far a start has come."""

    def look(self, place: Place) -> Observation:
        """Return what is seen of a running agent: what costs nothing first, the screen where it is needed."""

    def open_turn(self, home: Path, working_dir: Path, conversation: str) -> OpenTurn | None:
        """Return how the last turn of a conversation ended, and what it was told; None when nobody can tell.

        Args:
            home: an account home that has it.
            working_dir: where its client was started.
            conversation: its id.
        """

    def longest_wait(self, home: Path | None, variables: Mapping[str, str]) -> LongestWait | None:
        """Return for how long an agent may rightly say and do nothing; None when that cannot be known.

        Args:
            home: the account home.
            variables: its environment, with its account's.
        """

    def writers(self, homes: Sequence[Path], conversation: str) -> tuple[Writer, ...]:
        """Return the running processes that have a conversation open, in any of these homes."""

    def stale_files(self, homes: Sequence[Path], process: ProcessId) -> tuple[Path, ...]:
        """Return the files that a process which is proven gone left behind and that say it runs."""

    def background(self, home: Path) -> ProcessId | None:
        """Return the client's own daemon for this home, which outlives its agents; None when none runs."""


def takes_id(runtime: Runtime, agent: AgentSettings) -> bool:
    """Say whether a new conversation begins under the id it is given; else the client chooses one itself.

    A client that chooses is started with the same argv whatever the id. What cannot be told about (`tells`)
    gets the id in its environment, and is believed to take it.
    """
    return not runtime.tells or runtime.fresh(agent, "one") != runtime.fresh(agent, "other")
