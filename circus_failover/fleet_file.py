"""circus.ini read offline, as Circus itself reads it: endpoints, agents, and which failover.yaml they use.

For whatever must know the fleet without a running circusd: `validate`, `doctor`, `up`, and the lock that an
arbiter takes before it binds. It uses Circus's own parser, so it cannot disagree with circusd; it checks only
what keeps the file from being read and what makes a watcher look like an agent without being one.
"""

from __future__ import annotations

import configparser
import contextlib
import difflib
import glob
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from circus import logger
from circus.config import get_config, read_config
from circus.util import to_bool, to_signum

from circus_failover.problems import Problem, SettingsError, printable

ENROL = "circus_failover.hooks.enrol"
GATE_HOOK = "before_start"
CONFIG_OPTION = "failover.config"
CONFIG_VARIABLE = "FAILOVER_CONFIG"
POOL_SECTION = "failover-pool:"
"""Circus 0.19 passes over sections of such a name (circus/config.py, get_config)."""


@dataclass(frozen=True)
class FleetFile:
    """One circus.ini with what it includes.

    `agents` are the watchers that name the enrol hook, as Circus's get_config() gives them. `problems` are
    mistakes that leave the file readable, `notes` what is allowed and yet surprising. `sources` says which
    file a section is in.
    """

    path: Path
    endpoint: str
    pubsub_endpoint: str
    env: Mapping[str, str] = field(hash=False)
    agents: tuple[Mapping[str, object], ...]
    other_watchers: tuple[str, ...]
    plugins: tuple[Mapping[str, str], ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    pools: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    """What the sections of `failoverctl pool` say, by the name of the pool, with no variable replaced."""
    include_dir: str = ""
    """As circus.ini says: folders, relative to it."""

    def config_path(self, watcher: Mapping[str, object]) -> Path | None:
        """The failover.yaml of a watcher: its option, else FAILOVER_CONFIG of its env or this process."""
        return config_path(watcher, self.path, self.env)

    def config_paths(self) -> tuple[Path, ...]:
        """Every failover.yaml that an agent uses, each once."""
        paths = (self.config_path(agent) for agent in self.agents)
        return tuple(dict.fromkeys(path for path in paths if path is not None))

    def source(self, section: str) -> str:
        """The file that a section is in, by its full name (`watcher:bob`)."""
        return self.sources.get(section, str(self.path))


class Unreadable(SettingsError):
    """A circus.ini with which circusd would not start. `right`, what is right of it, is to look for more."""

    def __init__(self, problems: Iterable[Problem], right: FleetFile) -> None:
        super().__init__(problems)
        self.right = right


def config_path(
    watcher: Mapping[str, object], ini: Path, env: Mapping[str, str] | None = None
) -> Path | None:
    """The failover.yaml of a watcher: its option, else FAILOVER_CONFIG of its env, of [env], of this process.

    A relative path resolves against the folder of `ini`.
    """
    own = watcher.get("env")
    named = (
        watcher.get(CONFIG_OPTION)
        or (own.get(CONFIG_VARIABLE) if isinstance(own, Mapping) else None)
        or (env or {}).get(CONFIG_VARIABLE)
        or os.environ.get(CONFIG_VARIABLE)
    )
    if not named:
        return None
    # A variable that is not set stays in the path, where the message about the missing file shows it.
    return ini.absolute().parent / os.path.expandvars(os.path.expanduser(str(named).strip()))


def read(path: Path) -> FleetFile:
    """Read one circus.ini.

    Raises SettingsError when Circus itself could not read it, with every reason that can be told apart.
    """
    name = os.path.abspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Circus's own, about statsd and about its logging
            with _quietly():
                parser, files = read_config(name)
                sources, again = _sources(files)
                wrong = list(_wrong_values(name, parser, sources))
                if wrong:
                    raise Unreadable(wrong, _without(wrong, name, parser, sources))
                config = get_config(name)
        env = dict(parser.items("env")) if parser.has_section("env") else {}
    except SettingsError:
        raise
    except configparser.Error as error:
        line = getattr(error, "lineno", 0) or next((number for number, _ in getattr(error, "errors", ())), 0)
        text = str(error).replace("\n", " ")
        raise SettingsError(
            [Problem(name, "", text, "an ini file: sections with `key = value`", line=line)]
        ) from error
    except OSError as error:
        found = error.strerror or str(error)
        raise SettingsError([Problem(name, "", found, "a readable circus.ini")]) from error
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 ({error.object[error.start]:#04x})"
        raise SettingsError([Problem(name, "", found, "an ini file in UTF-8")]) from error
    except Exception as error:
        # Circus's parser meets wrong values with whatever exception comes about, and circusd ends with it.
        found = f"{type(error).__name__}: {error}"
        raise SettingsError([Problem(name, "", found, "values that Circus can read")]) from error
    env.pop("__name__", None)
    watchers: list[dict[str, object]] = config["watchers"]
    agents = tuple(watcher for watcher in watchers if _hook(watcher, GATE_HOOK) == ENROL)
    others = [watcher for watcher in watchers if _hook(watcher, GATE_HOOK) != ENROL]
    problems = list(_lost_includes(name, parser))
    for other in others:
        problems.extend(_almost(other, name, sources))
    return FleetFile(
        path=Path(name),
        endpoint=config["endpoint"],
        pubsub_endpoint=config["pubsub_endpoint"],
        env=env,
        agents=agents,
        other_watchers=tuple(str(other["name"]) for other in others),
        plugins=tuple({key: str(value) for key, value in plugin.items()} for plugin in config["plugins"]),
        problems=tuple(problems),
        notes=tuple(f"{section} is there more than once: Circus takes it for one" for section in again),
        sources=sources,
        pools=dict(_pools(parser)),
        include_dir=parser.get("circus", "include_dir") if parser.has_option("circus", "include_dir") else "",
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what Circus says of includes without files: one that is lost is told as a problem.

    An include_dir that is empty is as good as any: pools come into it, and leave.
    """

    def other(record: logging.LogRecord) -> bool:
        return "does not lead to any config" not in record.getMessage()

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _pools(parser: configparser.RawConfigParser) -> Iterator[tuple[str, Mapping[str, str]]]:
    for section in parser.sections():
        if section.startswith(POOL_SECTION):
            # Circus's own parser replaces its variables, unless it is told not to (0.19).
            items: list[tuple[str, str]] = parser.items(section, noreplace=True)  # type: ignore[call-overload]
            own = [(key, text) for key, text in items if parser.defaults().get(key) != text]
            yield section.removeprefix(POOL_SECTION), {key: text for key, text in own if key != "__name__"}


def _hook(watcher: Mapping[str, object], name: str) -> str | None:
    """The callable that a watcher names for a hook, without the `,true` that may follow it."""
    hooks = watcher.get("hooks")
    value = hooks.get(name) if isinstance(hooks, Mapping) else None
    return str(value[0]) if isinstance(value, list) and value else None


_Rule: TypeAlias = tuple[Callable[[str], object], str]


def _integer(text: str) -> object:
    return int(text)


# What Circus 0.19 converts while it reads (circus/config.py, get_config); a value that does not convert ends
# circusd with a traceback that names neither section nor key.
_INTEGER: _Rule = (_integer, "a whole number")
_SECONDS: _Rule = (float, "a number of seconds")
_SWITCH: _Rule = (to_bool, "True or False")
_CIRCUS: Mapping[str, _Rule] = {
    "check_delay": _SECONDS,
    "warmup_delay": _INTEGER,
    "httpd_port": _INTEGER,
    "umask": (lambda text: int(text, 8), "an octal number"),
    **dict.fromkeys(("statsd", "httpd", "debug", "debug_gc"), _SWITCH),
}
_WATCHER: Mapping[str, _Rule] = {
    **dict.fromkeys(("numprocesses", "warmup_delay", "max_retry", "priority"), _INTEGER),
    **dict.fromkeys(("on_demand", "shell", "send_hup", "stop_children", "use_sockets", "singleton"), _SWITCH),
    **dict.fromkeys(("copy_env", "copy_path", "check_flapping", "respawn", "autostart"), _SWITCH),
    **dict.fromkeys(("close_child_stdin", "close_child_stdout", "close_child_stderr"), _SWITCH),
    "graceful_timeout": _SECONDS,
    "stop_signal": (to_signum, "a signal's name or number"),
}
_FAMILIES = ("hooks.", "rlimit_", "stdout_stream.", "stderr_stream.")
_HOOK: _Rule = (
    lambda text: to_bool((text.split(",", 1) + ["false"])[1]),
    "a hook's name, or a name and ,true or ,false",
)


def _wrong_values(
    name: str, parser: configparser.RawConfigParser, sources: Mapping[str, str]
) -> Iterator[Problem]:
    """Every value that Circus will fail to convert."""
    for section in parser.sections():
        for key, text in parser.items(section):
            convert = _converter(section, key)
            if convert is None:
                continue
            try:
                # $(circus.env.X) may take its value from an [env] section, which only Circus puts together
                if "$(" not in text and "((" not in text:
                    convert[0](text)
            except (ValueError, TypeError, AttributeError, LookupError):
                yield Problem(sources.get(section, name), key, text, convert[1], section=section)


def _without(
    wrong: Iterable[Problem], name: str, parser: configparser.RawConfigParser, sources: Mapping[str, str]
) -> FleetFile:
    """The agents, with every option as text, that the file would have without these values."""
    left_out = {(problem.section, problem.key) for problem in wrong}
    agents = []
    for section in (section for section in parser.sections() if section.startswith("watcher:")):
        options = dict(parser.items(section))
        if options.get(f"hooks.{GATE_HOOK}", "").split(",")[0].strip() == ENROL:
            right = {
                key: text
                for key, text in options.items()
                if (section, key) not in left_out and not key.startswith(_FAMILIES)
            }
            agents.append({**right, "name": section.removeprefix("watcher:")})
    env = dict(parser.items("env")) if parser.has_section("env") else {}
    return FleetFile(Path(name), "", "", env, tuple(agents), (), (), sources=sources)


def _converter(section: str, key: str) -> _Rule | None:
    if section == "circus":
        return _CIRCUS.get(key)
    if section.startswith("plugin:"):
        return _INTEGER if key == "priority" else None
    if not section.startswith("watcher:"):
        return None
    if key.startswith("hooks."):
        return _HOOK
    if key.startswith("rlimit_"):
        return (lambda text: int(text or 0), "a whole number")
    return _WATCHER.get(key)


def _lost_includes(name: str, parser: configparser.RawConfigParser) -> Iterator[Problem]:
    """Included files and folders that are not there: Circus only logs them, and loses the agents in them."""
    folder = os.path.dirname(name)
    for key, what in (("include", "file"), ("include_dir", "folder")):
        text = parser.get("circus", key) if parser.has_option("circus", key) else ""
        for entry in text.split():
            path = os.path.join(folder, entry)
            if not glob.glob(path) and (key == "include_dir" or not glob.has_magic(path)):
                yield Problem(
                    name, key, entry, f"a {what} that is there, relative to {folder}", section="circus"
                )


def _almost(watcher: Mapping[str, object], name: str, sources: Mapping[str, str]) -> Iterator[Problem]:
    """What shows that a watcher was meant to be an agent, though it does not name the enrol hook."""
    section = f"watcher:{watcher['name']}"
    file = sources.get(section, name)
    hook = _hook(watcher, GATE_HOOK)
    hooks = watcher.get("hooks")
    misplaced = [key for key in hooks if _hook(watcher, key) == ENROL] if isinstance(hooks, Mapping) else []
    options = [key for key in watcher if key.startswith("failover.")]
    if hook is not None and difflib.SequenceMatcher(None, hook, ENROL).ratio() > 0.8:
        yield Problem(
            file, f"hooks.{GATE_HOOK}", hook, f"{ENROL}, if this is to be an agent", section=section
        )
    elif misplaced:
        expected = f"hooks.{GATE_HOOK} = {ENROL}: enrol is no other hook"
        yield Problem(file, f"hooks.{misplaced[0]}", ENROL, expected, section=section)
    elif options:
        expected = f"hooks.{GATE_HOOK} = {ENROL} too; without it this watcher is no agent"
        yield Problem(file, options[0], watcher[options[0]], expected, section=section)


def _sources(files: list[str]) -> tuple[dict[str, str], list[str]]:
    """Which file each section is in, and the watchers that stand there twice.

    Circus merges sections of one name, and the first value of a key wins: a section copied for a second agent
    without a new name is lost without a word.
    """
    sources: dict[str, str] = {}
    again: list[str] = []
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                match = re.match(r"\[(.+)\]", line)
                if match and match[1] in sources and match[1].startswith("watcher:"):
                    again.append(f"[{printable(match[1])}] ({printable(file)})")
                elif match:
                    sources.setdefault(match[1], file)
    return sources, again
