"""An init from beginning to end: look, plan, write the journal, carry it out; and the way back.

It puts the other modules of this package together and holds the lock. It asks nothing (that is `dialogue`)
and prints nothing (that is the verb).
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from circus_failover import client_processes, shared_state, state_dir
from circus_failover.failure import Failed
from circus_failover.init import contents, files, moving, plan
from circus_failover.init.contents import MERGE_DEPTH
from circus_failover.init.moving import Header, Journal
from circus_failover.init.plan import Ground, HomeGround, Plan, Wish
from circus_failover.init.steps import Kind
from circus_failover.policy.gate import Evidence, judge
from circus_failover.problems import printable
from circus_failover.settings import DEFAULT_LINKS, DEFAULT_NEVER, RUNTIMES, Settings, Shared
from circus_failover.state_dir import StateDir


@dataclass(frozen=True)
class Prepared:
    """A plan, with the files it writes and the homes in which nothing may run meanwhile."""

    wish: Wish
    plan: Plan
    texts: dict[str, str]
    busy: tuple[str, ...]
    """Who uses a home that would be changed, a sentence each."""


def prepare(wish: Wish, who: bool = True) -> Prepared:
    """Plan an init; nothing is changed.

    Args:
        wish: what is wanted.
        who: look also who uses the homes.
    """
    texts = files.render(wish)
    refusals = files.problems(wish, texts)
    if refusals:
        return Prepared(wish, Plan((), (), tuple(refusals)), texts, ())
    made = plan.make(wish, ground(wish, texts), texts)
    return Prepared(wish, made, texts, tuple(_busy(_moved(wish, made))) if who else ())


def apply(prepared: Prepared, now: float) -> None:
    """Carry out what was planned.

    Args:
        prepared: without refusals.
        now: epoch seconds.

    Raises:
        Failed: a client runs, another init is at it, or a step was not possible.
    """
    wish = prepared.wish
    homes = _moved(wish, prepared.plan)
    with _made(wish.folder) as made, locked(wish.folder, homes):
        again = prepare(wish, who=False).plan
        if again.refusals or again.moves != prepared.plan.moves or unfinished(wish.folder):
            raise Failed("what is there has changed since it was looked at; nothing was done, run init again")
        refuse_busy(homes, str(wish.state_dir))
        touched = tuple(_homes((*plan.MOVES, Kind.LINK), wish, again))
        header = Header(again.steps, touched, str(wish.state_dir), made, now)
        moving.go(moving.begin(wish.folder, header))


@contextmanager
def _made(folder: Path) -> Iterator[tuple[str, ...]]:
    """Have a folder there; when nothing came of it, those that had to be made are gone again."""
    missing = missing_folders(str(folder))
    try:
        for path in missing:
            os.mkdir(path, 0o700)
        yield missing
    except OSError as error:
        raise Failed(f"{printable(str(folder))} cannot be used: {error.strerror}") from error
    finally:
        for path in reversed(missing):
            with suppress(OSError):
                os.rmdir(path)


def unfinished(folder: Path) -> Journal | None:
    """Return the init in this folder that was interrupted, going or undone half-way; None when none was."""
    paths = moving.journals(folder)
    if not paths:
        return None
    journal = moving.read(paths[-1])
    return None if journal.whole else journal


def resume(folder: Path) -> Journal:
    """Carry an interrupted init on to its end.

    Raises:
        Failed: it is an undo that was interrupted, a client runs, or a step was not possible.
    """
    homes = moving.read(moving.journals(folder)[-1]).header.homes
    with locked(folder, homes):
        journal = unfinished(folder)
        if journal is None:
            raise Failed(f"{printable(str(folder))}: another init has gone on with it meanwhile")
        if journal.undoing:
            raise Failed(
                f"{printable(str(folder))}: an undo was interrupted; failoverctl init --undo goes on"
            )
        refuse_busy(journal.header.homes, journal.header.state_dir)
        moving.go(journal)
        return journal


def newest(folder: Path) -> Journal:
    """Return the init that an undo takes back.

    Raises:
        Failed: there is none.
    """
    paths = moving.journals(folder)
    if not paths:
        raise Failed(
            f"{printable(str(folder))}: nothing to undo: no init was made here (--dir names its folder)"
        )
    return moving.read(paths[-1])


def undo(folder: Path) -> list[str]:
    """Take the newest init in a folder back.

    Returns:
        What was left where it is, a sentence each.

    Raises:
        Failed: there is none, something runs, or a step could not be taken back.
    """
    homes = newest(folder).header.homes
    with locked(folder, homes):
        journal = newest(folder)
        refuse_busy(journal.header.homes, journal.header.state_dir)
        return moving.undo(journal)


@contextmanager
def locked(folder: Path, homes: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Hold the locks of a folder and of homes, so that one init at a time is at them.

    Raises:
        Failed: another one holds one of them.
    """
    with ExitStack() as held:
        for path in sorted({str(folder), *(home for _, home in homes if os.path.isdir(home))}):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                held.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Failed(f"{printable(path)}: another failoverctl init is at it") from error
            except OSError as error:
                raise Failed(f"{printable(path)} cannot be opened: {error.strerror}") from error
        yield


def refuse_busy(homes: Iterable[tuple[str, str]], state: str) -> None:
    """Refuse while anything uses what is about to change.

    Raises:
        Failed: a client runs on one of the homes, or circusd on the state directory.
    """
    holder = state_dir.holder(StateDir(Path(state)))
    if holder is not None:
        raise Failed(
            f"circusd (pid {holder.process.pid}) runs with {printable(state)}: failoverctl down {holder.ini}"
        )
    busy = list(_busy(homes))
    if busy:
        raise Failed("\n".join(busy))


def _busy(homes: Iterable[tuple[str, str]]) -> Iterator[str]:
    for runtime, home in homes:
        if users := client_processes.users(Path(home), runtime):
            shown = ", ".join(map(str, users[:5])) + (f" and {len(users) - 5} more" if users[5:] else "")
            yield f"home {printable(home)} is in use: {shown}; nothing is moved while it is: end them first"


def _moved(wish: Wish, made: Plan) -> list[tuple[str, str]]:
    return _homes(plan.MOVES, wish, made)


def _homes(kinds: Sequence[Kind], wish: Wish, made: Plan) -> list[tuple[str, str]]:
    return [(account.runtime, str(account.home)) for account in plan.homes_with(kinds, wish, made)]


def missing_folders(path: str) -> tuple[str, ...]:
    """Return the folders that would have to be made for this one to be there, the outermost first."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return tuple(missing)


def _free(path: str, ending: str) -> str:
    """Return a path that nothing has, made from this one."""
    number = 1
    while os.path.lexists(found := f"{path}.{ending}-{number}"):
        number += 1
    return found


def ground(wish: Wish, texts: dict[str, str]) -> Ground:
    """Look at what a plan depends on."""
    names = {name for account in wish.accounts for name in DEFAULT_LINKS[account.runtime]}
    root = str(wish.root) if wish.root is not None else ""
    above = root or str(wish.folder)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    try:
        homes = {
            account.name: _home(account.home, DEFAULT_LINKS[account.runtime]) for account in wish.accounts
        }
        shared = {name: _look(os.path.join(root, name), name) for name in names} if root else {}
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}; nothing was changed, try again") from error
    return Ground(
        homes=homes,
        shared=shared,
        device=os.stat(above).st_dev,
        missing={
            path: missing_folders(path) for path in (root, *(str(a.home) for a in wish.accounts)) if path
        },
        backups={path: _free(path, "backup") for path in texts if os.path.lexists(path)},
        failures=tuple(judge(_evidence(wish), True, None).failures),
        around=tuple(account.name for account in wish.accounts if root and _inside(root, account.home)),
    )


def _inside(path: str, folder: Path) -> bool:
    return f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(folder)}/")


def _look(path: str, name: str) -> contents.Item:
    return contents.look(path, MERGE_DEPTH.get(name, 0))


def _home(home: Path, names: Sequence[str]) -> HomeGround:
    try:
        found = os.stat(home)
    except OSError:
        return HomeGround(False)
    items = {name: _look(os.path.join(home, name), name) for name in names}
    aside = {name: _free(os.path.join(home, name), "before-init") for name in names}
    return HomeGround(True, items, stat.S_IMODE(found.st_mode), found.st_mtime_ns, aside)


def _evidence(wish: Wish) -> Evidence:
    none: dict[str, tuple[str, ...]] = dict.fromkeys(RUNTIMES, ())
    shared = Shared(wish.root, True, DEFAULT_LINKS if wish.root else none, DEFAULT_NEVER)
    meant = Settings(wish.folder / files.YAML, wish.state_dir, shared, wish.accounts, {})
    return shared_state.inspect(meant, wish.accounts)
