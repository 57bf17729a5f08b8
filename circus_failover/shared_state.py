"""What is on disk where account homes and shared state should meet.

Collects evidence for the gate with lstat, readlink and stat, and decides nothing: the verdict is that of
`policy.gate`. `inspect` and `check` run inside circusd's loop before every launch, so they cost well under a
millisecond and change nothing. Only `create`, for an operator who asks, makes what is missing, and it never
touches what is there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from circus_failover.policy.gate import (
    Divergence,
    Entry,
    Evidence,
    Folder,
    Home,
    Link,
    Never,
    Target,
    Verdict,
    judge,
)
from circus_failover.problems import printable
from circus_failover.settings import Account, Settings

# os.path throughout: pathlib costs more than the system calls do.
_join = os.path.join


def check(settings: Settings, account: Account | None) -> Verdict:
    """Inspect what a launch of an agent of `account` (None: of no account) depends on, and judge it.

    All homes are looked at, also where only one is judged: what must not be shared may be another's too.
    """
    evidence = inspect(settings, settings.accounts)
    return judge(evidence, settings.shared.strict, None if account is None else account.name)


def inspect(settings: Settings, accounts: Sequence[Account]) -> Evidence:
    """Look at the homes of `accounts` and at the shared root."""
    root = (
        _folder(os.fspath(settings.shared.root)) if settings.shared.root else Folder("", "", Target.MISSING)
    )
    # the canonical homes of all accounts, since each may be in the way of another
    others = tuple((account.name, _canonical(os.fspath(account.home))) for account in settings.accounts)
    known = dict(others)
    shared: dict[str, tuple[int, int] | None] = {}
    homes = []
    for account in accounts:
        path = os.fspath(account.home)
        folder = _folder(path, known.get(account.name))
        if folder.target is Target.FOLDER:
            never = tuple(_never(path, name) for name in settings.shared.never(account.runtime))
        else:
            never = ()
        links = tuple(
            _link(path, name, root.canonical, shared) for name in settings.shared.links(account.runtime)
        )
        homes.append(Home(account.name, folder, links, never))
    return Evidence(os.geteuid(), os.getegid(), root, tuple(homes), others)


def _failed(error: OSError) -> Target:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Target.MISSING
    return Target.LOOP if error.errno == errno.ELOOP else Target.UNREADABLE


def _canonical(path: str) -> str:
    """The path free of links; of a chain of links that the kernel does not follow either, the path itself."""
    try:
        return os.path.realpath(path)
    except RecursionError:  # Python 3.10 to 3.12 follow a link of a link by a call of its own
        return path


def _folder(path: str, canonical: str | None = None) -> Folder:
    canonical = _canonical(path) if canonical is None else canonical
    try:
        found = os.stat(path)
    except OSError as error:
        return Folder(path, canonical, _failed(error), error.strerror or str(error))
    return Folder(path, canonical, Target.FOLDER if stat.S_ISDIR(found.st_mode) else Target.FILE)


def _identity(path: str) -> tuple[int, int] | None:
    """The device and inode of a real folder, None for anything else."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _entry(mode: int) -> Entry:
    if stat.S_ISLNK(mode):
        return Entry.LINK
    if stat.S_ISDIR(mode):
        return Entry.FOLDER
    return Entry.FILE if stat.S_ISREG(mode) else Entry.OTHER


def _link(home: str, name: str, root: str, shared: dict[str, tuple[int, int] | None]) -> Link:
    path = _join(home, name)
    try:
        entry = _entry(os.lstat(path).st_mode)
        if entry is not Entry.LINK:
            return Link(name, entry)
        text = os.readlink(path)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return Link(name, Entry.MISSING if missing else Entry.UNREADABLE, error=error.strerror or str(error))
    try:
        found = os.stat(path)
    except OSError as error:
        return Link(name, entry, text, _failed(error), _canonical(path), error=error.strerror or str(error))
    expected = _join(root, name)
    if name not in shared:
        shared[name] = _identity(expected)
    # The same folder by device and inode has the same canonical path, for a tenth of realpath's price.
    same = (found.st_dev, found.st_ino) == shared[name]
    canonical = expected if same else _canonical(path)
    target = Target.FOLDER if stat.S_ISDIR(found.st_mode) else Target.FILE
    return Link(name, entry, text, target, canonical, found.st_uid, found.st_gid, found.st_mode)


def _never(home: str, name: str) -> Never:
    path = _join(home, name)
    try:
        found = os.lstat(path)
        entry = _entry(found.st_mode)
        text = os.readlink(path) if entry is Entry.LINK else ""
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return Never(name, Entry.MISSING if missing else Entry.UNREADABLE, error=error.strerror or str(error))
    return Never(name, entry, text, (found.st_dev, found.st_ino))


def create(settings: Settings) -> list[str]:
    """Make the homes, shared folders and links that are missing. Returns what was done, one sentence each.

    What is there stays as it is, also when it diverges: the gate tells of that. A second run does nothing and
    returns an empty list, unless something could not be made, which is said again.
    """
    if settings.shared.root is None or not settings.accounts:
        return []
    evidence = inspect(settings, settings.accounts)
    misplaced = {
        failure.account
        for failure in judge(evidence, True, None).failures
        if failure.kind in (Divergence.HOME_INSIDE, Divergence.HOME_SHARED)
    }
    root = _canonical(os.fspath(settings.shared.root))
    done = list(_make_folder(root))
    for account in settings.accounts:
        if account.name in misplaced:
            continue
        home = os.fspath(account.home)
        done.extend(_make_folder(_canonical(home)))
        for name in settings.shared.links(account.runtime):
            done.extend(_make_folder(_join(root, name)))
            done.extend(_make_link(_join(home, name), _join(root, name)))
    return list(dict.fromkeys(done))


def _make_folder(path: str) -> Iterator[str]:
    """Make a folder and the folders above it, each for this user alone."""
    if os.path.lexists(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        yield from _make_folder(parent)
    try:
        os.mkdir(path, 0o700)
        yield f"made the folder {printable(path)}"
    except FileExistsError:
        pass  # somebody else made it meanwhile, and the gate will look at it
    except OSError as error:
        yield f"could not make the folder {printable(path)}: {error.strerror}"


def _make_link(path: str, target: str) -> Iterator[str]:
    # A link to what is not a real folder would be a divergence of our own making.
    if os.path.lexists(path) or _identity(target) is None or not os.path.isdir(os.path.dirname(path)):
        return
    try:
        os.symlink(target, path)
        yield f"made the link {printable(path)} to {printable(target)}"
    except FileExistsError:
        yield f"left {printable(path)} alone: it appeared meanwhile"
    except OSError as error:
        yield f"could not make the link {printable(path)}: {error.strerror}"
