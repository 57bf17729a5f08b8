"""The shared-state gate: may this agent be launched, given what was found in the account homes?

Everything that decides about shared state is in this file: what counts as a divergence, whose divergence
refuses whom, and what the operator is told. It looks at nothing itself; `shared_state` collects the evidence.

Strict, a divergence of any configured account refuses every launch, since any agent may move to any account.
Not strict, only the agent's own account counts. Evidence that could not be had is a divergence: the gate
fails closed.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Divergence(str, Enum):
    """The ways in which shared state can differ from what is configured."""

    MISSING_LINK = "missing-link"
    ELSEWHERE = "link-to-elsewhere"
    DANGLING = "dangling-link"
    LOOP = "link-loop"
    REAL_FOLDER = "real-folder"
    REAL_FILE = "real-file"
    TARGET_NOT_FOLDER = "target-not-a-folder"
    TARGET_OWNER = "target-owner"
    TARGET_WRITABLE = "target-writable"
    NEVER_LINKED = "never-linked"
    HOME_MISSING = "home-missing"
    HOME_NOT_FOLDER = "home-not-a-folder"
    HOME_INSIDE = "home-inside-home"
    HOME_SHARED = "home-inside-shared"
    ROOT_MISSING = "root-missing"
    ROOT_NOT_FOLDER = "root-not-a-folder"
    UNREADABLE = "unreadable"
    UNKNOWN_ACCOUNT = "unknown-account"

    def __str__(self) -> str:
        return str(self.value)


class Entry(str, Enum):
    """What a path is, not following a link at its end."""

    MISSING = "missing"
    LINK = "link"
    FOLDER = "folder"
    FILE = "file"
    OTHER = "other"
    UNREADABLE = "unreadable"


class Target(str, Enum):
    """What following a path to its end leads to."""

    FOLDER = "folder"
    FILE = "file"
    MISSING = "missing"
    LOOP = "loop"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Folder:
    """A path that should be a folder. `canonical` is free of links; `error` is why nothing could be seen."""

    path: str
    canonical: str
    target: Target
    error: str = ""


@dataclass(frozen=True)
class Link:
    """What stands where a home should link to shared state."""

    name: str
    entry: Entry
    text: str = ""
    target: Target = Target.MISSING
    canonical: str = ""
    uid: int = -1
    gid: int = -1
    mode: int = 0
    error: str = ""


@dataclass(frozen=True)
class Never:
    """What stands where a home must keep its own. `identity` (device and inode) tells hard links."""

    name: str
    entry: Entry
    text: str = ""
    identity: tuple[int, int] | None = None
    error: str = ""


@dataclass(frozen=True)
class Home:
    """What was found in one account's home."""

    account: str
    folder: Folder
    links: tuple[Link, ...] = ()
    never: tuple[Never, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything the gate needs to know. `others` are all configured accounts with their canonical homes."""

    uid: int
    gid: int
    root: Folder
    homes: tuple[Home, ...]
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Failure:
    """One divergence: where it is, what is expected there, what was found, and what to do about it."""

    kind: Divergence
    account: str
    home: str
    link: str
    expected: str
    found: str
    remedy: str

    @property
    def message(self) -> str:
        """The failure as one printable line."""
        account = f"account {_shown(self.account)}: " if self.account else ""
        home = f"home {_shown(self.home)}: " if self.home else ""
        link = f"{_shown(self.link)}: " if self.link else ""
        return f"{account}{home}{link}expected {self.expected}, found {self.found}; {self.remedy}"

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Verdict:
    """Whether a launch may go ahead. `accounts` is how many homes were judged."""

    failures: tuple[Failure, ...]
    accounts: int

    @property
    def ok(self) -> bool:
        """True when nothing diverges."""
        return not self.failures

    @property
    def reason(self) -> str:
        """All failures as one line; empty when there are none."""
        return "; ".join(failure.message for failure in self.failures)


_PLAIN = re.compile(r"[\w@%+=:,./~-]+")
_CREATE = "failoverctl validate --create makes it"
_LOOK = "make it readable for the user that runs circusd"


def judge(evidence: Evidence, strict: bool, account: str | None) -> Verdict:
    """Judge the launch of an agent of `account` (None: of no account).

    Strict, every home in the evidence counts; otherwise only that of `account`. An account without evidence
    refuses.
    """
    homes = tuple(home for home in evidence.homes if strict or home.account == account)
    failures: list[Failure] = []
    if account is not None and all(home.account != account for home in homes):
        failures.append(
            Failure(
                Divergence.UNKNOWN_ACCOUNT,
                account,
                "",
                "",
                "a configured account",
                "none of that name",
                "add it to accounts in failover.yaml, or correct failover.account",
            )
        )
    if any(home.links for home in homes):
        failures.extend(_root(evidence.root))
    for home in homes:
        failures.extend(_home(home, evidence))
    return Verdict(tuple(failures), len(homes))


def _root(root: Folder) -> Iterator[Failure]:
    expected = f"the shared folder {_shown(root.path)} (shared.root)"
    if root.target is Target.MISSING:
        yield Failure(Divergence.ROOT_MISSING, "", "", "", expected, _nothing(root), _CREATE)
    elif root.target is Target.UNREADABLE:
        yield Failure(Divergence.UNREADABLE, "", "", "", expected, root.error, _LOOK)
    elif root.target is not Target.FOLDER:
        found = "a file" if root.target is Target.FILE else "a link that leads back to itself"
        yield Failure(Divergence.ROOT_NOT_FOLDER, "", "", "", expected, found, "correct shared.root")


def _home(home: Home, evidence: Evidence) -> Iterator[Failure]:
    def failure(kind: Divergence, expected: str, found: str, remedy: str) -> Failure:
        return Failure(kind, home.account, home.folder.path, "", expected, found, remedy)

    folder = home.folder
    if folder.target is Target.MISSING:
        yield failure(Divergence.HOME_MISSING, "a folder", _nothing(folder), _CREATE)
    elif folder.target is Target.UNREADABLE:
        yield failure(Divergence.UNREADABLE, "a folder", folder.error, _LOOK)
    elif folder.target is not Target.FOLDER:
        found = "a file" if folder.target is Target.FILE else "a link that leads back to itself"
        yield failure(Divergence.HOME_NOT_FOLDER, "a folder", found, "correct the account's home")
    for name, other in evidence.others:
        if name != home.account and _inside(folder.canonical, other):
            yield failure(
                Divergence.HOME_INSIDE,
                "a home outside every other home",
                f"it is {_shown(folder.canonical)}, in the home {_shown(other)} of account {_shown(name)}",
                "give each account a home of its own",
            )
    for link in home.links:
        shared = _under(evidence.root.canonical, link.name)
        if _inside(folder.canonical, shared):
            yield failure(
                Divergence.HOME_SHARED,
                "a home outside the shared folders",
                f"it is {_shown(folder.canonical)}, in the shared folder {_shown(shared)}",
                "move the home elsewhere",
            )
        elif _swallowed(home, link, evidence):
            yield failure(
                Divergence.HOME_SHARED,
                f"a home whose {_shown(link.name)} can be a link",
                f"the shared folder {_shown(shared)} is in its place",
                "move the home elsewhere, or correct shared.root",
            )
    if folder.target is Target.FOLDER:
        for link in home.links:
            if not _swallowed(home, link, evidence):
                yield from _link(home, link, evidence)
        for never in home.never:
            yield from _never(home, never, evidence)


def _swallowed(home: Home, link: Link, evidence: Evidence) -> bool:
    """Whether the shared folder itself stands where the link to it should be, or below that."""
    shared = _under(evidence.root.canonical, link.name)
    return _inside(shared, _under(home.folder.canonical, link.name))


def _nothing(folder: Folder) -> str:
    leads = f": it leads to {_shown(folder.canonical)}" if folder.canonical != folder.path else ""
    return f"nothing there{leads}"


class _Make(Protocol):
    def __call__(self, kind: Divergence, found: str, remedy: str, expected: str = "") -> Failure: ...


def _link(home: Home, link: Link, evidence: Evidence) -> Iterator[Failure]:
    """The decision table of one link: the first line that applies."""
    target = _under(evidence.root.canonical, link.name)
    shared, text = _shown(target), _shown(link.text)
    replace = "point it there by hand, after looking at what it holds now"
    move = f"move what it holds to {shared} and remove it; then failoverctl validate --create makes the link"

    def failure(kind: Divergence, found: str, remedy: str, expected: str = "") -> Failure:
        expected = expected or f"a symlink to {shared}"
        return Failure(kind, home.account, home.folder.path, link.name, expected, found, remedy)

    if link.entry is Entry.MISSING:
        yield failure(Divergence.MISSING_LINK, "nothing there", _CREATE)
    elif link.entry is Entry.FOLDER:
        yield failure(Divergence.REAL_FOLDER, "a real folder", move)
    elif link.entry in (Entry.FILE, Entry.OTHER):
        found = "a real file" if link.entry is Entry.FILE else "something that is neither file nor folder"
        yield failure(Divergence.REAL_FILE, found, move)
    elif link.entry is Entry.UNREADABLE or link.target is Target.UNREADABLE:
        yield failure(Divergence.UNREADABLE, link.error, _LOOK)
    elif link.target is Target.LOOP:
        yield failure(Divergence.LOOP, f"a link to {text}, which leads back to itself", replace)
    elif link.canonical != target:
        gone = ", where nothing is" if link.target is Target.MISSING else ""
        through = f", by way of {text}" if link.text != link.canonical else ""
        yield failure(Divergence.ELSEWHERE, f"a link to {_shown(link.canonical)}{through}{gone}", replace)
    elif link.target is Target.MISSING:
        # without the root every right link dangles, which is said once, of the root
        if evidence.root.target is Target.FOLDER:
            yield failure(Divergence.DANGLING, f"a link to {text}, where nothing is", _CREATE)
    elif link.target is Target.FILE:
        yield failure(
            Divergence.TARGET_NOT_FOLDER,
            f"a link to {text}, which is a file",
            "make a folder of it",
            f"a symlink to the folder {shared}",
        )
    else:
        yield from _target(link, evidence, failure)


def _target(link: Link, evidence: Evidence, failure: _Make) -> Iterator[Failure]:
    """Whether others could put something into the shared folder, or take it away."""
    where = _shown(link.canonical)
    if link.uid != evidence.uid:
        yield failure(
            Divergence.TARGET_OWNER,
            f"{where} owned by uid {link.uid}",
            f"chown it to uid {evidence.uid}, or run circusd as uid {link.uid}",
            f"{where} owned by uid {evidence.uid}, the user that runs circusd",
        )
    everybody = link.mode & stat.S_IWOTH
    if everybody or (link.mode & stat.S_IWGRP and link.gid != evidence.gid):
        who = "everybody" if everybody else f"the group {link.gid}"
        yield failure(
            Divergence.TARGET_WRITABLE,
            f"{where} with mode {link.mode & 0o7777:04o}, writable by {who}",
            f"chmod go-w {where}",
            f"{where} writable by its owner only",
        )


def _never(home: Home, never: Never, evidence: Evidence) -> Iterator[Failure]:
    def failure(kind: Divergence, found: str, remedy: str) -> Failure:
        expected = "the account's own, not a link: it must not be shared"
        return Failure(kind, home.account, home.folder.path, never.name, expected, found, remedy)

    if never.entry is Entry.UNREADABLE:
        yield failure(Divergence.UNREADABLE, never.error, _LOOK)
    elif never.entry is Entry.LINK:
        yield failure(
            Divergence.NEVER_LINKED,
            f"a link to {_shown(never.text)}",
            "remove the link and let the account log in by itself",
        )
    elif never.identity is not None:
        for other in evidence.homes:
            same = any(entry.identity == never.identity for entry in other.never)
            if same and other.account != home.account:
                yield failure(
                    Divergence.NEVER_LINKED,
                    f"the same file as in the home of {_shown(other.account)}",
                    "give each account a file of its own",
                )


def _under(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(_under(folder, ""))


def _shown(text: str) -> str:
    """A path or a name as it is, or quoted and escaped when it could pretend to be something else."""
    short = text if len(text) <= 1024 else text[:1021] + "..."
    return short if _PLAIN.fullmatch(short) else repr(short)
