"""What failover.yaml says: the state directory, the shared state, the accounts and the defaults.

This module reads and checks that one file and answers with frozen values. It reports every mistake at once,
each as a `Problem`. It never looks at what the paths point to (that is `shared_state`), creates nothing, and
knows nothing of watchers (that is `agent_settings`).
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from circus_failover.notify_settings import Hidden, Target, has_address, targets
from circus_failover.problems import Problem as Problem
from circus_failover.problems import SettingsError as SettingsError
from circus_failover.problems import describe, nearest
from circus_failover.web import options as web_options

RUNTIMES = ("command", "claude", "codex")
ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
Names: TypeAlias = Mapping[str, tuple[str, ...]]
DEFAULT_LINKS: Names = {
    "command": ("projects", "file-history", "session-env"),
    "claude": ("projects", "file-history", "session-env"),
    "codex": ("sessions", "thread-writer-locks"),
}
DEFAULT_NEVER: Names = {
    "command": (".credentials.json",),
    "claude": (".credentials.json", "sessions", "image-cache", ".claude.json"),
    "codex": ("auth.json",),
}
# A settings file is a page or two. The limit keeps a wrong path (a log, a database) from stalling circusd.
MAX_BYTES = 256 * 1024

_RUNTIMES = ", ".join(RUNTIMES)
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


@dataclass(frozen=True)
class Account:
    """A named home directory with its own credentials."""

    name: str
    runtime: str
    home: Path
    env_file: Path | None = None
    """A file (0600) of variables that only its agents get."""
    max_agents: int | None = None
    """How many agents may be up on it at once; None: any number."""


@dataclass(frozen=True)
class Shared:
    """The folders that every account home links to, and the names that must never be shared."""

    root: Path | None = None
    strict: bool = True
    links_by_runtime: Names = field(default_factory=lambda: dict(DEFAULT_LINKS), hash=False)
    never_by_runtime: Names = field(default_factory=lambda: dict(DEFAULT_NEVER), hash=False)

    def links(self, runtime: str) -> tuple[str, ...]:
        """The names that each home of this runtime must link to the same name under `root`."""
        return self.links_by_runtime[runtime]

    def never(self, runtime: str) -> tuple[str, ...]:
        """The names in a home of this runtime that must not be links."""
        return self.never_by_runtime[runtime]


@dataclass(frozen=True)
class Settings:
    """One checked failover.yaml. `defaults` holds watcher options without the `failover.` prefix, as text."""

    path: Path
    state_dir: Path
    shared: Shared
    accounts: tuple[Account, ...]
    defaults: Mapping[str, str] = field(hash=False)
    log_verbose: bool = False
    """Also a line in lifecycle.log, at each tick of a plugin, for an agent that is as it should be."""
    notify: tuple[Target, ...] = ()
    """Who is told of what happens."""
    web: web_options.Options = web_options.Options()
    """How the web console runs."""

    def account(self, name: str) -> Account | None:
        """The configured account of this name, or None."""
        return next((account for account in self.accounts if account.name == name), None)


class Unusable(SettingsError):
    """A failover.yaml with mistakes. `right`, what is right of it, is to look for more, and not to run by."""

    def __init__(self, problems: Sequence[Problem], right: Settings) -> None:
        super().__init__(problems)
        self.right = right


def expand_path(text: str, folder: Path) -> Path:
    """An absolute path from configuration text: `~` and `$VAR` expanded, relative to `folder`.

    `..` is kept, since the kernel and not the text decides what it means behind a symlink.
    Raises ValueError with the reason, worded to follow "expected".
    """
    undefined: list[str] = []

    def value(match: re.Match[str]) -> str:
        name = match[1] if match[1] is not None else match[2]
        if name not in os.environ:
            undefined.append(name)
        return os.environ.get(name, "")

    expanded = _VARIABLE.sub(value, text)
    if undefined:
        names = ", ".join(describe(name) for name in dict.fromkeys(undefined))
        raise ValueError(f"variables that are set; {names} is not: set it for circusd, or write the path out")
    if not expanded.strip():
        raise ValueError("a path, not an empty text")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in expanded):
        raise ValueError("a path without control characters or broken text")
    if expanded.startswith("~"):
        home = os.path.expanduser(expanded)
        if home.startswith("~"):
            raise ValueError("a path; there is no such user to take '~' from")
        expanded = home
    return Path(os.path.abspath(folder), expanded)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Document(_Model):
    state_dir: str = Field(description="the folder that holds the store, the logs and the sockets")
    shared: dict[Any, Any] = Field({}, description="root, strict, links, never, runtimes")
    accounts: list[Any] = Field([], description="each with name, runtime, home, env_file, max_agents")
    defaults: dict[Any, Any] = Field({}, description="watcher options and their values")
    log_verbose: bool = Field(False, description="whether lifecycle.log also tells the steady state")
    notify: list[Any] = Field([], description="who is told of what happens; each with an address")
    web: dict[Any, Any] = Field({}, description="how the web console runs")


class _Runtime(_Model):
    links: list[Any] | None = Field(None, description="the names each home links")
    never: list[Any] | None = Field(None, description="the names that must not be links")


class _Shared(_Runtime):
    root: str | None = Field(None, description="the folder that all account homes link into")
    strict: bool = Field(True, description="whether every account must be in order before any launch")
    runtimes: dict[Any, Any] | None = Field(None, description="links and never by runtime")


class _Account(_Model):
    name: str = Field(description="1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit")
    runtime: str = Field("command", description=f"one of {_RUNTIMES}")
    home: str = Field(description="the account's own folder")
    env_file: str | None = Field(None, description="a file (0600) of variables that only its agents get")
    max_agents: int | None = Field(None, description="how many agents may be up on it at once, 1 or more")


class _Web(_Model):
    host: str = Field(web_options.HOST, description="the address that is listened on")
    port: int = Field(web_options.PORT, description="the port, 1 to 65535; 0: any that is free")
    allow_remote: bool = Field(False, description="whether others than this machine may reach it without TLS")
    tls_cert: str | None = Field(None, description="the file of the certificate")
    tls_key: str | None = Field(None, description="the file of its key")
    hosts: list[Any] = Field([], description="names that it answers to, beside those of loopback")
    proxy: bool = Field(False, description="whether a reverse proxy on this machine is believed")
    sign_in_days: float = Field(web_options.SIGN_IN_DAYS, description="days until one signs in anew")
    endpoints: list[Any] = Field([], description="further circusds; each with name, endpoint, ssh")


class _WebEndpoint(_Model):
    name: str = Field(description=web_options.A_NAME)
    endpoint: str = Field(description="where it listens: tcp://HOST:PORT or ipc://PATH")
    ssh: str | None = Field(None, description="the machine to reach it through: [USER@]HOST")


_TYPES = {
    "string_type": "text, in quotes if need be",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "missing": "a value",
}


class _Reader:
    """Takes one document apart, collecting problems and going on with whatever is right."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Path(os.path.dirname(os.path.abspath(path)))
        self.problems: list[Problem] = []

    def problem(self, key: str, value: object, expected: str, line: int = 0) -> None:
        self.problems.append(Problem(str(self.path), key, value, expected, line=line))

    def checked(self, model: type[_Model], data: object, where: str) -> dict[str, Any]:
        """The fields of `data` that `model` accepts, with its defaults; a problem for each of the others.

        The models are strict, so an accepted value is the value itself; a field that is wrong is left out.
        """
        if not isinstance(data, dict):
            self.problem(where.rstrip("."), data, "a mapping with the keys " + ", ".join(model.model_fields))
            return {}
        wrong: set[object] = set()
        try:
            model.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                wrong.add(detail["loc"][0] if detail["loc"] else "")
                self._translate(model, detail, where)
        right = (item for item in model.model_fields.items() if item[0] not in wrong)
        return {name: data.get(name, info.default) for name, info in right}

    def _translate(self, model: type[_Model], detail: ErrorDetails, where: str) -> None:
        loc, kind, value = detail["loc"], detail["type"], detail["input"]
        name = str(loc[0]) if loc else ""
        key = where + name + "".join(f"[{part}]" for part in loc[1:])
        known = list(model.model_fields)
        if kind in ("extra_forbidden", "invalid_key"):
            # A target of `notify` under a mistyped key: its address holds secrets.
            value = Hidden(value) if has_address(value) else value
            self.problem(key, value, f"a known key ({', '.join(known)}){nearest(name, known)}")
        elif kind == "missing":
            self.problem(key, None, f"a value: {model.model_fields[name].description}")
        else:
            about = model.model_fields[name].description if len(loc) == 1 else None
            self.problem(key, value, _TYPES.get(kind, "another value") + (f": {about}" if about else ""))

    def folder_at(self, key: str, text: str) -> Path | None:
        try:
            return expand_path(text, self.folder)
        except ValueError as error:
            self.problem(key, text, str(error))
            return None

    def accounts(self, entries: Sequence[object]) -> tuple[Account, ...]:
        accounts: list[Account] = []
        names: dict[str, str] = {}
        homes: dict[str, str] = {}
        for index, entry in enumerate(entries):
            where = f"accounts[{index}]"
            fields = self.checked(_Account, entry, where + ".")
            name, runtime = fields.get("name"), fields.get("runtime")
            if name is not None and not ACCOUNT_NAME.fullmatch(name):
                self.problem(f"{where}.name", name, str(_Account.model_fields["name"].description))
            elif name is not None and names.setdefault(name, where) != where:
                self.problem(f"{where}.name", name, f"a name of its own; {names[name]} has this one")
            if runtime is not None and runtime not in RUNTIMES:
                self.problem(f"{where}.runtime", runtime, f"one of {_RUNTIMES}{nearest(runtime, RUNTIMES)}")
            most = fields.get("max_agents")
            if most is not None and most < 1:
                self.problem(f"{where}.max_agents", most, "1 or more; leave it out for any number")
            home = self.folder_at(f"{where}.home", fields["home"]) if "home" in fields else None
            # Also by another path: a link to a home is no second account.
            if home is not None and (other := homes.setdefault(os.path.realpath(home), where)) != where:
                self.problem(f"{where}.home", str(home), f"a folder of its own; {other} has this one")
            if name is not None and runtime is not None and home is not None:
                env_file = fields.get("env_file")
                path = None if env_file is None else self.folder_at(f"{where}.env_file", env_file)
                accounts.append(Account(name, runtime, home, path, fields.get("max_agents")))
        return tuple(accounts)

    def names(self, key: str, entries: Sequence[object] | None) -> tuple[str, ...] | None:
        names = []
        for index, name in enumerate(entries or ()):
            if not isinstance(name, str):
                self.problem(f"{key}[{index}]", name, _TYPES["string_type"])
            elif not name.strip() or name in (".", "..") or "/" in name or not name.isprintable():
                self.problem(f"{key}[{index}]", name, "the plain name of a folder or file in an account home")
            else:
                names.append(name)
        return None if entries is None else tuple(dict.fromkeys(names))

    def shared(self, data: object, accounts: Sequence[Account], root_needed: bool) -> Shared:
        fields = self.checked(_Shared, data, "shared.")
        root = None if fields.get("root") is None else self.folder_at("shared.root", fields["root"])
        if root_needed and "root" in fields and fields["root"] is None:
            self.problem("shared.root", None, "the folder that the homes of the accounts link into")
        common = {key: self.names(f"shared.{key}", fields.get(key)) for key in ("links", "never")}
        own: dict[str, dict[str, tuple[str, ...] | None]] = {}
        for runtime, entry in (fields.get("runtimes") or {}).items():
            where = f"shared.runtimes.{runtime}"
            if runtime not in RUNTIMES:
                self.problem(where, entry, f"a known runtime ({_RUNTIMES}){nearest(str(runtime), RUNTIMES)}")
                continue
            lists = self.checked(_Runtime, entry, where + ".")
            own[runtime] = {key: self.names(f"{where}.{key}", lists.get(key)) for key in ("links", "never")}
        links, never = dict(DEFAULT_LINKS), dict(DEFAULT_NEVER)
        used = {account.runtime for account in accounts} | set(own)
        for runtime in RUNTIMES:
            for key, table in (("links", links), ("never", never)):
                chosen = own.get(runtime, {}).get(key)
                chosen = common[key] if chosen is None else chosen
                table[runtime] = table[runtime] if chosen is None else chosen
            # The built-in lists of a runtime that nobody uses are no mistake of the operator's.
            if runtime in used or (common["links"] is not None and common["never"] is not None):
                for name in links[runtime]:
                    if name in never[runtime]:
                        self.problem(
                            f"shared.links ({runtime})",
                            name,
                            f"a name that is not in the never list of {runtime} too; remove one",
                        )
        return Shared(root, fields.get("strict", True), links, never)

    def web(self, data: object) -> web_options.Options:
        fields = self.checked(_Web, data, "web.")
        entries = [
            self.checked(_WebEndpoint, entry, f"web.endpoints[{index}].")
            for index, entry in enumerate(fields.get("endpoints", ()))
        ]
        return web_options.options(self, fields, entries)

    def defaults(self, data: Mapping[object, object]) -> dict[str, str]:
        defaults: dict[str, str] = {}
        for key, value in data.items():
            where = f"defaults.{key}"
            if not isinstance(key, str) or not key.removeprefix("failover."):
                self.problem(where, key, "the name of a watcher option, with or without 'failover.'")
            elif not isinstance(value, (str, int, float)):
                self.problem(where, value, "one value: text, a number, true or false")
            elif key.removeprefix("failover.") in defaults:
                self.problem(where, value, "each option once; it is given with and without 'failover.'")
            else:
                text = str(value)
                defaults[key.removeprefix("failover.")] = text.lower() if isinstance(value, bool) else text
        return defaults

    def settings(self, data: object) -> Settings:
        if isinstance(data, dict):  # a section with nothing under it is a section left out
            data = {
                key: value
                for key, value in data.items()
                if value is not None or key not in ("shared", "accounts", "defaults", "notify", "web")
            }
            if "notify" in data and not isinstance(data["notify"], list):
                # Whatever stands there may be an address, with its secrets.
                data["notify"] = Hidden(data["notify"])
        fields = self.checked(_Document, data, "")
        state_dir = self.folder_at("state_dir", fields["state_dir"]) if "state_dir" in fields else None
        accounts = self.accounts(fields.get("accounts", ()))
        needed = bool(fields.get("accounts")) and "shared" in fields
        shared = self.shared(fields.get("shared", {}), accounts, needed)
        defaults = self.defaults(fields.get("defaults", {}))
        notify = targets(self, fields.get("notify", ()))
        web = self.web(fields.get("web", {}))
        if self.problems or state_dir is None:
            named = {one.name: one for one in reversed(accounts) if one.runtime in RUNTIMES}
            known = tuple(reversed(named.values()))
            right = Settings(self.path, state_dir or Path("/"), shared, known, defaults)
            raise Unusable(self.problems, right)
        verbose = bool(fields.get("log_verbose", False))
        return Settings(self.path, state_dir, shared, accounts, defaults, verbose, notify, web)

    def document(self) -> object:
        """The file's content as plain values. Duplicate keys are problems; what cannot be read raises."""
        try:
            loader = yaml.SafeLoader(_content(self.path))
            node = loader.get_single_node()
            if node:
                self._duplicates(node)
            return loader.construct_document(node) if node else {}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            text = getattr(error, "problem", None) or str(error)
            what = text.removeprefix("but ").removeprefix("found ")  # the message says "found" itself
            text = what if what != text else f"a mistake: {text}"
            self.problem("", text, "valid YAML in UTF-8", line=mark.line + 1 if mark else 0)
        except OSError as error:
            self.problem("", error.strerror or str(error), "a readable file; correct the path or create it")
        # the others are what PyYAML lets through for a value that does not fit its tag, as in `!!int ''`
        except (RecursionError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            self.problem("", str(error), "values that YAML can read, in a few levels")
        raise SettingsError(self.problems)

    def _duplicates(self, root: yaml.Node) -> None:
        stack, seen = [root], set()
        while stack:
            node = stack.pop()
            if id(node) in seen:  # an alias leads to the same node again
                continue
            seen.add(id(node))
            if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > 100:
                raise ValueError("a number that is too long")  # Python would not even print it
            if isinstance(node, yaml.SequenceNode):
                stack.extend(node.value)
            elif isinstance(node, yaml.MappingNode):
                stack.extend(part for pair in node.value for part in pair)
                lines: dict[tuple[str, str], int] = {}
                for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                    line, name = key.start_mark.line + 1, (key.tag, key.value)
                    if name in lines:
                        found = f"the same key on lines {lines[name]} and {line}"
                        self.problem(key.value, found, "each key once; remove one", line=line)
                    lines.setdefault(name, line)


def _content(path: Path) -> bytes:
    """The bytes of a regular file. Never waits, as a fifo or a device in its place would make circusd do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            raise OSError(f"something other than a regular file of at most {MAX_BYTES} bytes")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def load(path: Path) -> Settings:
    """Read and check one failover.yaml.

    Raises SettingsError with every problem found.
    """
    reader = _Reader(Path(os.path.abspath(path)))
    return reader.settings(reader.document())
