"""What `notify:` in failover.yaml says: who is told, of what, and how often.

A target's address holds secrets: no problem, no text of a value and no front end shows it, only its name and
its scheme. Nothing is sent, and nothing that an address leads to is looked at, but for a file that has it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from circus_failover.policy.telling import Rules
from circus_failover.problems import Problem, nearest
from circus_failover.words import NoticeKind

KINDS = tuple(str(kind) for kind in NoticeKind if kind is not NoticeKind.TEST)
TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_A_NAME = "1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit"
MOST_TARGETS = 50
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://\S")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESSES = ("url", "url_env", "url_file", "command")
KEYS = (
    *("name", *_ADDRESSES, "only", "except", "agents"),
    *("min_interval_secs", "digest_secs", "burst", "burst_secs"),
)
_SECS = {
    "min_interval_secs": (0.0, 86400.0),
    "digest_secs": (1.0, 86400.0),
    "burst_secs": (1.0, 86400.0),
}


@dataclass(frozen=True)
class Target:
    """Somebody who is told: by an Apprise URL, or by a command."""

    name: str
    url: str | None = field(default=None, repr=False)
    """An Apprise URL; it holds secrets."""
    url_env: str | None = None
    """The variable that has it."""
    url_file: Path | None = None
    """The file (0600) that has it."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """What is run, with the notice as JSON on its standard input."""
    rules: Rules = field(default_factory=Rules)

    @property
    def scheme(self) -> str:
        """What may be shown of its address."""
        if self.command:
            return "command"
        return scheme_of(self.url) if self.url is not None else "url"

    def transport(self) -> dict[str, Any]:
        """Return how it is reached, for the process that sends."""
        if self.command:
            return {"command": list(self.command)}
        if self.url is not None:
            return {"url": self.url}
        return {"url_env": self.url_env} if self.url_env is not None else {"url_file": str(self.url_file)}


def scheme_of(url: str) -> str:
    """Return the part of a URL that is no secret; `url` where there is none."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else "url"


class Hidden:
    """Stands for a value that may hold a secret, in a problem: it only says what kind of thing it is."""

    def __init__(self, value: object) -> None:
        kinds = {str: "a text", list: "a list", dict: "a mapping", int: "a number", float: "a number"}
        self._kind = "nothing" if value is None else kinds.get(type(value), "a value")

    def __repr__(self) -> str:
        return f"{self._kind} that is not shown"


def has_address(value: object) -> bool:
    """Say whether a value of a YAML document has a text in it that looks like a URL."""
    # Each part once: an alias may lead to the same one a million times.
    seen: set[int] = set()
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, str) and "://" in part:
            return True
        if isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))
            stack.extend(part)
            stack.extend(part.values() if isinstance(part, dict) else ())
    return False


class Reading(Protocol):
    """What reads failover.yaml, as far as it is needed here."""

    def problem(self, key: str, value: object, expected: str, line: int = 0) -> None:
        """Collect a mistake."""

    def folder_at(self, key: str, text: str) -> Path | None:
        """Return a path made absolute; a mistake is collected."""


def targets(reading: Reading, entries: Sequence[object]) -> tuple[Target, ...]:
    """Return the targets of `notify:`; each mistake is one problem, without any value that may be secret.

    Args:
        reading: collects the problems.
        entries: what stands there.
    """
    found: list[Target] = []
    names: dict[str, str] = {}
    if len(entries) > MOST_TARGETS:
        reading.problem("notify", len(entries), f"at most {MOST_TARGETS} targets")
        return ()
    for index, entry in enumerate(entries):
        target = _Entry(reading, f"notify[{index}]", entry).target(index, names)
        if target is not None:
            found.append(target)
    return tuple(found)


class _Entry:
    """One target as it stands in the file."""

    def __init__(self, reading: Reading, where: str, entry: object) -> None:
        self._reading = reading
        self._where = where
        self._wrong = False
        self._given: dict[str, Any] = {}
        if not isinstance(entry, dict):
            self._problem("", Hidden(entry), f"a mapping with some of the keys {', '.join(KEYS)}")
            return
        for key, value in entry.items():
            if isinstance(key, str) and key in KEYS:
                self._given[key] = value
            else:
                # What stands there may be an address that slipped into the place of a key.
                known = f"a known key ({', '.join(KEYS)}){nearest(str(key), KEYS)}"
                name = key if isinstance(key, str) and len(key) <= 30 and "/" not in key else "(a key)"
                self._problem(f".{name}", Hidden(value), known)

    def _problem(self, key: str, value: object, expected: str) -> None:
        self._wrong = True
        self._reading.problem(self._where + key, value, expected)

    def target(self, index: int, names: dict[str, str]) -> Target | None:
        """Return it, checked; None when there is a problem."""
        if self._wrong:
            return None
        address = [key for key in _ADDRESSES if self._given.get(key) is not None]
        if len(address) != 1:
            found = ", ".join(address) if address else None
            self._problem("", found, f"exactly one of {', '.join(_ADDRESSES)}")
            return None
        url, url_env, url_file, command = self._url(), self._url_env(), self._url_file(), self._command()
        rules = self._rules()
        name = self._name(index, names, url or "", command)
        if self._wrong or name is None:
            return None
        return Target(name, url, url_env, url_file, command, rules)

    def _url(self) -> str | None:
        value = self._given.get("url")
        if value is not None and not (isinstance(value, str) and _SCHEME.match(value) and _plain(value)):
            self._problem(".url", Hidden(value), "an Apprise URL on one line: SCHEME://...")
            return None
        return value

    def _url_env(self) -> str | None:
        value = self._given.get("url_env")
        if value is not None and not (isinstance(value, str) and _VARIABLE_NAME.fullmatch(value)):
            # Whoever puts the address itself here must not read it in a log.
            self._problem(".url_env", Hidden(value), "the name of a variable: letters, digits and '_'")
            return None
        return value

    def _url_file(self) -> Path | None:
        value = self._given.get("url_file")
        if value is None:
            return None
        if not isinstance(value, str) or "://" in value:
            self._problem(".url_file", Hidden(value), "the path of a file that has the Apprise URL")
            return None
        path = self._reading.folder_at(f"{self._where}.url_file", value)
        self._wrong = self._wrong or path is None
        return path

    def _command(self) -> tuple[str, ...]:
        value = self._given.get("command")
        if value is None:
            return ()
        fits = isinstance(value, list) and value and all(isinstance(word, str) for word in value)
        if not fits or not value[0].strip() or any("\0" in word for word in value):
            expected = "a list of texts, the program first: it is run without a shell"
            self._problem(".command", Hidden(value), expected)
            return ()
        return tuple(value)

    def _name(self, index: int, names: dict[str, str], url: str, command: Sequence[str]) -> str | None:
        value = self._given.get("name")
        if value is None:
            made = os.path.basename(command[0]) if command else scheme_of(url)
            value = made if TARGET_NAME.fullmatch(made) else "target"
            if value in names:
                value = f"{value[:50]}-{index + 1}"
        elif not isinstance(value, str) or not TARGET_NAME.fullmatch(value):
            self._problem(".name", Hidden(value), _A_NAME)
            return None
        if names.setdefault(value, self._where) != self._where:
            self._problem(".name", value, f"a name of its own; {names[value]} has this one")
            return None
        return str(value)

    def _rules(self) -> Rules:
        only, excepted = self._kinds("only"), self._kinds("except")
        if only and excepted:
            self._problem(".except", sorted(excepted), "only or except, not both")
        if self._given.get("only") == []:
            self._problem(".only", [], "at least one kind; without the target nobody is told")
        secs = {key: self._secs(key, *_SECS[key]) for key in _SECS}
        return Rules(
            only=only,
            excepted=excepted,
            agents=self._texts("agents", "a list of names of agents; * and ? stand for other characters"),
            min_interval_secs=secs["min_interval_secs"],
            digest_secs=secs["digest_secs"],
            burst=self._burst(),
            burst_secs=secs["burst_secs"],
        )

    def _texts(self, key: str, expected: str) -> tuple[str, ...]:
        value = self._given.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            self._problem(f".{key}", Hidden(value), expected)
            return ()
        return tuple(dict.fromkeys(value))

    def _kinds(self, key: str) -> frozenset[str]:
        kinds = self._texts(key, f"a list of kinds: {', '.join(KINDS)}")
        for place, kind in enumerate(kinds):
            if kind not in KINDS:
                expected = f"a kind of notice: {', '.join(KINDS)}{nearest(kind, KINDS)}"
                self._problem(f".{key}[{place}]", kind, expected)
        return frozenset(kinds) & frozenset(KINDS)

    def _secs(self, key: str, least: float, most: float) -> float:
        value = self._given.get(key)
        if value is None:
            return float(getattr(Rules, key))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self._problem(f".{key}", value, f"seconds from {least:g} to {most:.0f}")
            return least
        return float(value)

    def _burst(self) -> int:
        value = self._given.get("burst")
        if value is None:
            return Rules.burst
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
            self._problem(".burst", value, "a whole number from 1 to 100")
            return 1
        return value


def _plain(text: str) -> bool:
    return text.isprintable() and len(text) <= 4096


def exposed(path: Path, found: Sequence[Target]) -> Iterator[str]:
    """Say which targets' addresses others on this host can read in a failover.yaml.

    Args:
        path: the file.
        found: its targets.
    """
    literal = [target.name for target in found if target.url is not None]
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return
    if literal and mode & 0o077:
        names = ", ".join(literal)
        yield (
            f"{path} has mode {mode:04o}, and has the addresses of notify targets ({names}): "
            f"chmod 600 {path}, or use url_file"
        )


def unreadable(path: Path, found: Sequence[Target]) -> Iterator[Problem]:
    """Find the files of addresses that are not there, or that others can read.

    Args:
        path: the failover.yaml.
        found: its targets.
    """
    for target in found:
        wrong = None if target.url_file is None else file_trouble(target.url_file)
        if wrong is not None:
            expected = "a file of this user, mode 0600, with one Apprise URL"
            found_there = f"{target.url_file}: {wrong}"
            yield Problem(str(path), f"notify {target.name}.url_file", found_there, expected)


def file_trouble(path: Path) -> str | None:
    """Return why the address in a file is not used, or None."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.strerror or "it cannot be looked at"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_uid != os.geteuid():
        return f"it belongs to uid {status.st_uid}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"it has mode {stat.S_IMODE(status.st_mode):04o}, and others may read it: chmod 600"
    return None


def plain(target: Target) -> Mapping[str, Any]:
    """Return a target as a front end shows it, without its address."""
    rules = target.rules
    return {
        "name": target.name,
        "scheme": target.scheme,
        "only": sorted(rules.only),
        "except": sorted(rules.excepted),
        "agents": list(rules.agents),
        "min_interval_secs": rules.min_interval_secs,
        "digest_secs": rules.digest_secs,
        "burst": rules.burst,
        "burst_secs": rules.burst_secs,
    }


def packed(target: Target) -> dict[str, Any]:
    """Return a target as JSON takes it, its address too: for a pipe, and nothing else."""
    return {**plain(target), "transport": target.transport()}


def unpacked(raw: Mapping[str, Any]) -> Target:
    """Return the target that `packed` made this of."""
    to = raw["transport"]
    return Target(
        name=str(raw["name"]),
        url=to.get("url"),
        url_env=to.get("url_env"),
        url_file=Path(to["url_file"]) if "url_file" in to else None,
        command=tuple(to.get("command", ())),
        rules=Rules(
            only=frozenset(raw["only"]),
            excepted=frozenset(raw["except"]),
            agents=tuple(raw["agents"]),
            min_interval_secs=raw["min_interval_secs"],
            digest_secs=raw["digest_secs"],
            burst=raw["burst"],
            burst_secs=raw["burst_secs"],
        ),
    )
