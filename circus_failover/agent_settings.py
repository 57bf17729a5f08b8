"""What one watcher of circus.ini says about its agent, with the defaults of failover.yaml filled in.

This module turns the watcher's options into one frozen `AgentSettings`, or says everything that is wrong with
them. A wrong agent is wrong alone: nothing here looks at other agents (that is `validation`) or at account
homes (that is `shared_state`).
"""

from __future__ import annotations

import math
import os
import re
import shlex
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from circus.util import to_bool, to_uid

from circus_failover import agents, task_text
from circus_failover.agents.command import CONVERSATION as CONVERSATION
from circus_failover.client_arguments import owned_in_arguments, owned_in_command
from circus_failover.problems import Problem, SettingsError, nearest
from circus_failover.settings import ACCOUNT_NAME, RUNTIMES, Account, Settings, expand_path
from circus_failover.words import Kind, Mode, OnLimit, Orphans, Restart

PREFIX = "failover."
IDENTITY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SESSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
POOL = ACCOUNT_NAME
KEEPER = "failover-session"

_SECONDS: Mapping[str, tuple[float, float]] = {
    # option: default, largest
    "prepare_secs": (300.0, 86400.0),
    "stop_secs": (10.0, 3600.0),
    "ready_secs": (1.0, 3600.0),
    "boot_secs": (240.0, 86400.0),
    "resume_max_age_secs": (86400.0, 10 * 365 * 86400.0),
    "idle_secs": (3600.0, 365 * 86400.0),
    "max_age_secs": (0.0, 10 * 365 * 86400.0),
    "crash_window_secs": (300.0, 86400.0),
    "stable_secs": (300.0, 86400.0),
    "grace_secs": (300.0, 86400.0),
    "nudge_secs": (900.0, 30 * 86400.0),
    "stuck_secs": (1800.0, 30 * 86400.0),
    "progress_secs": (1800.0, 30 * 86400.0),
    "queue_max_age_secs": (3600.0, 365 * 86400.0),
}
_TEXTS = (
    *(
        "runtime",
        "command",
        "args",
        "dialogs",
        "resume_command",
        "account",
        "socket",
        "session",
        "restart",
        "mode",
        "kind",
    ),
    *("prepare", "pool", "resume_lost", "ready_match", "crash_max", "initial_prompt"),
    *("pool_min", "work_retries", "on_orphan", "done_on_idle", "heartbeat", "nudge_no_progress"),
    *("on_limit", "switch_at"),
)
OPTIONS = ("config", *_TEXTS, *_SECONDS)
CIRCUS_OPTIONS = frozenset(
    (
        *("args", "autostart", "check_flapping", "close_child_stderr", "close_child_stdin"),
        *("close_child_stdout", "cmd", "copy_env", "copy_path", "env", "executable", "gid"),
        *("graceful_timeout", "hooks", "max_age", "max_age_variance", "max_retry", "name", "numprocesses"),
        *("on_demand", "prereload_fn", "priority", "respawn", "rlimits", "send_hup", "shell", "shell_args"),
        *("singleton", "stderr_stream", "stdin_socket", "stdout_stream", "stop_children", "stop_signal"),
        *("uid", "use_sockets", "virtualenv", "virtualenv_py_ver", "warmup_delay", "working_dir"),
    )
)
"""Every option of a watcher that Circus 0.19 knows, as its ini reader names them."""
CRASH_MAX = 100
WORK_RETRIES_MAX = 100
POOL_MAX = 1000
HEARTBEAT_SELF = "self"
"""The value of `failover.heartbeat` for the file that `failoverctl self beat` touches."""

E = TypeVar("E", bound=Enum)


@dataclass(frozen=True)
class AgentSettings:
    """One agent as configured. `own_server` is True unless `failover.socket` names a server."""

    identity: str
    settings: Settings
    runtime: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    """Further arguments of the command, the same for a fresh launch and a resume."""
    dialogs: Mapping[str, str]
    """How dialogs of the client are answered: its word by the dialog's name."""
    account: Account | None
    """The one that it is launched on."""
    configured_account: Account | None
    """The one that its section names; a switch moves it to another one."""
    socket: Path
    own_server: bool
    session: str
    restart: Restart
    mode: Mode
    prepare: str | None
    prepare_secs: float
    stop_secs: float
    ready_secs: float
    boot_secs: float
    ready_match: str | None
    """A regular expression that the screen must show before it is ready."""
    kind: Kind
    resume_command: tuple[str, ...] | None
    resume_lost: bool
    resume_max_age_secs: float
    idle_secs: float
    max_age_secs: float
    crash_max: int
    crash_window_secs: float
    stable_secs: float
    initial_prompt: str | None
    pool: str | None
    pool_min: int
    """How many agents of its pool are always up; the sections of a pool agree on it."""
    work_retries: int
    """How many launches may die with one assignment before it is orphaned."""
    on_orphan: Orphans
    done_on_idle: bool
    """Whether the client's finished turn means that its assignment is done."""
    heartbeat: Path | None
    """The file whose time of change is its heartbeat; None: it has no heartbeat contract."""
    grace_secs: float
    nudge_secs: float
    stuck_secs: float
    progress_secs: float
    nudge_no_progress: bool
    queue_max_age_secs: float
    on_limit: OnLimit
    """What happens when nothing can be done on its account."""
    switch_at: int
    """Per cent of a window that are used, from which on it is moved between two tasks; 0: never."""
    working_dir: Path
    autostart: bool

    @property
    def resumable(self) -> bool:
        """Whether its conversations can be resumed at all: by its runtime itself, or by `resume_command`."""
        return resumes_itself(self.runtime) or self.resume_command is not None


def resumes_itself(runtime: str) -> bool:
    """Say whether a runtime resumes without `failover.resume_command`: one that knows its program does."""
    return agents.RUNTIMES[runtime].program is not None


def socket_path_limit(platform: str = sys.platform) -> int:
    """How many bytes the path of a Unix socket may have: `sun_path` less its final NUL.

    108 bytes on Linux (unix(7)), 104 on macOS and the BSDs (sys/un.h).
    """
    return 107 if platform.startswith("linux") else 103


def parse(
    watcher: Mapping[str, object], settings: Settings, file: str, *, working_dir_is_there: bool = True
) -> AgentSettings:
    """Check one watcher, as Circus's own get_config() gives it, and return its agent.

    `file` is what problems of the watcher are said to be in; problems in the defaults name failover.yaml.
    `working_dir_is_there` says whether a folder that is missing is a problem: the gate asks that itself.
    Raises SettingsError with every problem found.
    """
    return _Parser(watcher, settings, file, working_dir_is_there).parse()


def no_place_for_socket(agent: AgentSettings) -> str | None:
    """What is expected where the agent's tmux server has its socket and is not so; None when it is.

    tmux 3.3a removes whatever is in the place of its socket, and ends with 0 when there is no such folder.
    """
    folder = agent.socket.parent
    if os.path.exists(agent.socket) and not stat.S_ISSOCK(os.stat(agent.socket).st_mode):
        return "a tmux server's socket, or nothing yet: something else is there"
    # what is in the state directory is made at the start
    needed = agent.mode is Mode.MANAGE and agent.settings.state_dir not in agent.socket.parents
    return f"a path in an existing folder: {folder} is none" if needed and not os.path.isdir(folder) else None


def check_defaults(settings: Settings) -> tuple[Problem, ...]:
    """The options in failover.yaml's defaults that no watcher can have."""
    known = [option for option in OPTIONS if option != "config"]
    return tuple(
        Problem(
            str(settings.path),
            f"defaults.{option}",
            value,
            "no failover.config here: this file is what it names"
            if option == "config"
            else f"a known watcher option{nearest(option, known) or ': ' + ', '.join(known)}",
        )
        for option, value in settings.defaults.items()
        if option not in known
    )


def _meant(key: str) -> str:
    """What an option that is neither Circus's nor ours was meant to be; empty where it resembles none.

    Circus 0.19 takes any option, since a watcher's other hooks and plugins may have options of their own.
    """
    if key in CIRCUS_OPTIONS or key.startswith(PREFIX):
        return ""
    if key in OPTIONS:
        return f"; did you mean {PREFIX + key!r}?"
    return nearest(key.lower(), (*CIRCUS_OPTIONS, *(PREFIX + option for option in OPTIONS)), cutoff=0.8)


def _all_dialogs() -> set[str]:
    return {dialog.name for runtime in agents.RUNTIMES.values() for dialog in runtime.dialogs}


class _Parser:
    """Takes one watcher apart, collecting problems and going on with whatever is right."""

    def __init__(
        self, watcher: Mapping[str, object], settings: Settings, file: str, working_dir_is_there: bool
    ) -> None:
        self.watcher = watcher
        self.working_dir_is_there = working_dir_is_there
        self.settings = settings
        self.file = file
        self.identity = str(watcher.get("name") or "")
        self.problems: list[Problem] = list(check_defaults(settings))

    def problem(self, key: str, value: object, expected: str) -> None:
        self.problems.append(Problem(self.file, key, value, expected, section=f"watcher:{self.identity}"))

    def wrong(self, option: str, value: object, expected: str) -> None:
        """A problem with an option, said of the file that the value came from."""
        if PREFIX + option in self.watcher or option not in self.settings.defaults:
            self.problem(PREFIX + option, value, expected)
        else:
            self.problems.append(Problem(str(self.settings.path), f"defaults.{option}", value, expected))

    def text(self, option: str) -> str | None:
        """The value of an option, from the watcher or else the defaults. Empty is a mistake, not a value."""
        value = self.watcher.get(PREFIX + option, self.settings.defaults.get(option))
        if value is None:
            return None
        text = str(value).strip()
        if not text:
            self.wrong(option, value, "a value; leave the option out to have none")
        elif "\0" in text:
            self.wrong(option, value, "a value without NUL characters")
        else:
            return text
        return None

    def matching(self, option: str, pattern: re.Pattern[str], expected: str) -> str | None:
        text = self.text(option)
        if text is not None and not pattern.fullmatch(text):
            self.wrong(option, text, expected)
        return text

    def one_of(self, option: str, kind: type[E], default: E) -> E:
        text = self.text(option)
        words = [str(word) for word in kind]
        if text is None or text in words:
            return default if text is None else kind(text)
        self.wrong(option, text, f"one of {', '.join(words)}{nearest(text, words)}")
        return default

    def seconds(self, option: str) -> float:
        default, largest = _SECONDS[option]
        text = self.text(option)
        if text is None:
            return default
        try:
            # float() takes `1_0` for 10, which in a file is more likely a slip
            number = float(text) if "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not 0 <= number <= largest:  # False for nan
            self.wrong(option, text, f"seconds: a number from 0 to {largest:.0f}")
            return default
        return number

    def parse(self) -> AgentSettings:
        if not IDENTITY.fullmatch(self.identity):
            self.problem("name", self.identity, "an identity: 1 to 63 of a-z, 0-9 and '-', the first not '-'")
        self._unknown()
        self._circus()
        runtime = self._runtime()
        mode = self.one_of("mode", Mode, Mode.MANAGE)
        command = self._command(mode, runtime)
        account = self._account(runtime)
        own_server, socket = self._socket()
        session = self.matching("session", SESSION, "1 to 100 letters, digits, '_' or '-', the first not '-'")
        pool = self.matching(
            "pool", POOL, "1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
        working_dir = self._working_dir()
        agent = AgentSettings(
            identity=self.identity,
            settings=self.settings,
            runtime=runtime,
            command=command,
            args=self._args(runtime),
            dialogs=self._dialogs(runtime),
            account=account,
            configured_account=account,
            socket=socket,
            own_server=own_server,
            session=session or self.identity,
            restart=self.one_of("restart", Restart, Restart.ON_WORK),
            mode=mode,
            prepare=self.text("prepare"),
            prepare_secs=self.seconds("prepare_secs"),
            stop_secs=self.seconds("stop_secs"),
            ready_secs=self.seconds("ready_secs"),
            boot_secs=self.seconds("boot_secs"),
            ready_match=self._ready_match(),
            kind=self.one_of("kind", Kind, Kind.EXECUTOR),
            resume_command=self._resume_command(runtime),
            resume_lost=self._switch("resume_lost", True),
            resume_max_age_secs=self.seconds("resume_max_age_secs"),
            idle_secs=self.seconds("idle_secs"),
            max_age_secs=self.seconds("max_age_secs"),
            crash_max=self._count("crash_max", 3, 1, CRASH_MAX, "how many deaths"),
            crash_window_secs=self.seconds("crash_window_secs"),
            stable_secs=self.seconds("stable_secs"),
            initial_prompt=self._initial_prompt(),
            pool=pool,
            pool_min=self._count("pool_min", 0, 0, POOL_MAX, "how many agents"),
            work_retries=self._count("work_retries", 3, 0, WORK_RETRIES_MAX, "how many deaths"),
            on_orphan=self.one_of("on_orphan", Orphans, Orphans.PERSON),
            done_on_idle=self._switch("done_on_idle", False),
            heartbeat=self._heartbeat(working_dir),
            grace_secs=self.seconds("grace_secs"),
            nudge_secs=self.seconds("nudge_secs"),
            stuck_secs=self.seconds("stuck_secs"),
            progress_secs=self.seconds("progress_secs"),
            nudge_no_progress=self._switch("nudge_no_progress", False),
            queue_max_age_secs=self.seconds("queue_max_age_secs"),
            on_limit=self.one_of("on_limit", OnLimit, self._on_limit(account)),
            switch_at=self._count("switch_at", 0, 0, 100, "per cent of a window"),
            working_dir=working_dir,
            autostart=self._flag("autostart", True),
        )
        if self.problems:
            raise SettingsError(self.problems)
        return agent

    def _on_limit(self, account: Account | None) -> OnLimit:
        """Return the default: to switch, where there is another account of the runtime."""
        if account is None:
            return OnLimit.NOTIFY
        like = [other for other in self.settings.accounts if other.runtime == account.runtime]
        return OnLimit.SWITCH if len(like) > 1 else OnLimit.WAIT

    def _unknown(self) -> None:
        for key, value in self.watcher.items():
            if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in OPTIONS:
                near = nearest(key.removeprefix(PREFIX), OPTIONS, PREFIX)
                self.problem(key, value, f"a known option{near or ': ' + PREFIX + ', '.join(OPTIONS)}")
            elif meant := _meant(key):
                self.problem(key, value, f"a known option{meant}")

    def _circus(self) -> None:
        """Circus's own options that an agent cannot do with another value."""
        self._cmd()
        number = self.watcher.get("numprocesses", 1)
        if str(number).strip() != "1":
            self.problem(
                "numprocesses", number, "1: an agent is one session; give each agent a watcher of its own"
            )
        uid = self.watcher.get("uid")
        if uid not in (None, ""):
            self._uid(uid)
        if self._flag("shell", False):
            self.problem("shell", True, "no shell: it would stand between circusd and the agent's keeper")
        if self._flag("on_demand", False):
            self.problem("on_demand", True, "no on_demand: it waits for a socket, and an agent has none")
        if self.watcher.get("executable"):
            executable = self.watcher["executable"]
            self.problem("executable", executable, f"no executable: it would run instead of {KEEPER}")

    def _cmd(self) -> None:
        cmd = self.watcher.get("cmd") or None
        expected = f"{KEEPER}; the agent's own command goes into {PREFIX}command"
        try:
            words = shlex.split(str(cmd)) if cmd is not None else []
        except ValueError as error:
            self.problem("cmd", cmd, f"{expected} ({error})")
            return
        if not words or os.path.basename(words[0]) != KEEPER:
            self.problem("cmd", cmd, expected)

    def _uid(self, uid: object) -> None:
        own = os.geteuid()
        expected = f"the user that runs circusd, uid {own}; leave uid out"
        try:
            number = to_uid(uid)
        except (ValueError, TypeError, OverflowError):
            self.problem("uid", uid, f"{expected} (there is no such user)")
            return
        if number != own:
            self.problem("uid", uid, expected)

    def _flag(self, key: str, default: bool) -> bool:
        value = self.watcher.get(key, default)
        try:
            return bool(to_bool(value))
        except (ValueError, AttributeError):
            self.problem(key, value, "True or False")
            return default

    def _runtime(self) -> str:
        runtime = self.text("runtime")
        if runtime is not None and runtime not in RUNTIMES:
            self.wrong("runtime", runtime, f"one of {', '.join(RUNTIMES)}{nearest(runtime, RUNTIMES)}")
            return RUNTIMES[0]
        return runtime or RUNTIMES[0]

    def _switch(self, option: str, default: bool) -> bool:
        text = self.text(option)
        words = {"true": True, "on": True, "yes": True, "1": True}
        words.update({"false": False, "off": False, "no": False, "0": False})
        if text is None:
            return default
        if text.lower() not in words:
            self.wrong(option, text, "true or false")
        return words.get(text.lower(), default)

    def _count(self, option: str, default: int, least: int, most: int, what: str) -> int:
        text = self.text(option)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            self.wrong(option, text, f"{what}: a whole number from {least} to {most}")
            return default
        return int(text)

    def _heartbeat(self, working_dir: Path) -> Path | None:
        """Return the heartbeat file: `self` names the one of `failoverctl self beat`."""
        text = self.text("heartbeat")
        if text is None:
            return None
        if text == HEARTBEAT_SELF:
            return self.settings.state_dir / "beats" / self.identity
        try:
            return expand_path(text, working_dir)
        except ValueError as error:
            self.wrong("heartbeat", text, f"{HEARTBEAT_SELF}, or {error}")
            return None

    def _ready_match(self) -> str | None:
        text = self.text("ready_match")
        try:
            if text is not None and re.compile(text).search(""):
                self.wrong("ready_match", text, "a regular expression that an empty screen does not match")
        except re.error as error:
            self.wrong("ready_match", text, f"a regular expression of Python ({error})")
        return text

    def _resume_command(self, runtime: str) -> tuple[str, ...] | None:
        text = self.text("resume_command")
        if text is None or not resumes_itself(runtime):
            return None if text is None else self._words("resume_command", text)
        if self._own("resume_command"):
            self.wrong("resume_command", text, f"no such option: runtime {runtime} resumes by itself")
        return None

    def _initial_prompt(self) -> str | None:
        text = self.text("initial_prompt")
        try:
            return None if text is None else task_text.check(text)
        except ValueError as error:
            self.wrong("initial_prompt", text, f"a text that can be typed ({error})")
            return None

    def _words(self, option: str, text: str) -> tuple[str, ...]:
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            self.wrong(option, text, f"a command line with its quotes closed ({error})")
            return ()
        if not (words and words[0]):
            self.wrong(option, text, "a command line that names a program")
            return ()
        return words

    def _command(self, mode: Mode, runtime: str) -> tuple[str, ...]:
        text, program = self.text("command"), agents.RUNTIMES[runtime].program
        words = self._words("command", text) if text is not None else ()
        for word, expected in owned_in_command(words, agents.RUNTIMES[runtime]):
            self.wrong("command", word, expected)
        if text is None and program is not None:
            return (program,)
        if text is None and mode is Mode.MANAGE and not self._given("command"):
            self.wrong(
                "command", None, f"the command that runs the agent (not needed with {PREFIX}mode = observe)"
            )
        return words

    def _args(self, runtime: str) -> tuple[str, ...]:
        text = self.text("args")
        try:
            words = () if text is None else tuple(shlex.split(text))
        except ValueError as error:
            self.wrong("args", text, f"arguments with their quotes closed ({error})")
            return ()
        for word, expected in owned_in_arguments(words, agents.RUNTIMES[runtime]):
            self.wrong("args", word, expected)
        return words

    def _dialogs(self, runtime: str) -> Mapping[str, str]:
        """Read `trust=accept bypass=accept`."""
        text = self.text("dialogs")
        known = {dialog.name: dialog for dialog in agents.RUNTIMES[runtime].dialogs}
        found: dict[str, str] = {}
        for part in (text or "").replace(",", " ").split():
            name, _, word = part.partition("=")
            if name not in known and not self._own("dialogs") and name in _all_dialogs():
                continue  # a default is for agents of every runtime
            if name not in known:
                listed = ", ".join(known) or f"none: runtime {runtime} has no dialogs"
                self.wrong("dialogs", part, f"a dialog of {runtime} ({listed}){nearest(name, list(known))}")
            elif word not in known[name].answers:
                answers = ", ".join(f"{name}={answer}" for answer in known[name].answers)
                self.wrong("dialogs", part, answers or f"nothing: a person has to answer {name}")
            elif found.setdefault(name, word) != word:
                self.wrong("dialogs", part, f"one answer to {name}")
        return found

    def _own(self, option: str) -> bool:
        """Say whether the section itself has an option, not only the defaults."""
        return PREFIX + option in self.watcher

    def _given(self, option: str) -> bool:
        # `add` over the endpoint may give an option without a value, which is none
        return self.watcher.get(PREFIX + option) is not None or option in self.settings.defaults

    def _account(self, runtime: str) -> Account | None:
        name = self.text("account")
        if name is None:
            return None
        account = self.settings.account(name)
        names = [known.name for known in self.settings.accounts]
        if account is None and not names:
            self.wrong(
                "account", name, f"no account, or one that {self.settings.path} configures (it has none)"
            )
        elif account is None:
            listed = ", ".join(names) if len(names) <= 10 else f"{len(names)} in {self.settings.path}"
            self.wrong("account", name, f"a configured account ({listed}){nearest(name, names)}")
        elif account.runtime != runtime:
            expected = f"an account of runtime {runtime}; this one is of runtime {account.runtime}"
            self.wrong("account", name, expected)
        return account

    def _socket(self) -> tuple[bool, Path]:
        own_server = not self._given("socket")
        path = self.settings.state_dir / "tmux" / f"{self.identity}.sock"
        text = self.text("socket")
        if text is not None:
            try:
                path = expand_path(text, Path(os.path.dirname(self.settings.path)))
            except ValueError as error:
                self.wrong("socket", text, str(error))
                return own_server, path
        elif not IDENTITY.fullmatch(self.identity):
            return own_server, path
        size, limit = len(os.fsencode(path)), socket_path_limit()
        if size > limit:
            remedy = f"a shorter {PREFIX}socket" if text else f"a shorter state_dir in {self.settings.path}"
            expected = f"a socket path of at most {limit} bytes (this has {size}): {remedy}"
            self.wrong("socket", str(path), expected)
        return own_server, path

    def _working_dir(self) -> Path:
        given = self.watcher.get("working_dir")
        # Circus 0.19 passes it on as it is: relative to where circusd was started, no '~' and no '$VAR'.
        try:
            path = os.path.abspath(str(given) if given else os.getcwd())
        except OSError as error:
            self.problem(
                "working_dir", given, f"an existing folder (circusd's own is gone: {error.strerror})"
            )
            return Path("/")
        if self.working_dir_is_there and not os.path.isdir(path):
            expected = f"an existing folder ({path} is none; Circus expands neither '~' nor '$VAR' here)"
            self.problem("working_dir", given, expected)
        return Path(path)
