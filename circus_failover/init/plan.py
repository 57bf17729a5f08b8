"""From what is on this machine and what the operator answered to the steps of an init. It touches nothing.

The head of the module is its table: what stands in a home where a link is to be, and in the shared folder.

| in the home | in the shared root | what is done |
|---|---|---|
| nothing, or the link | anything | the shared folder and the link are made where they are missing |
| a folder | nothing | the folder is moved, and a link takes its place |
| a folder | a folder | what is in it is moved, name by name, and a link takes its place |
| a folder | the same name in both | refused, with the names |
| anything else | anything | refused, as the gate words it |

On another file system a copy is made and compared, and the folder stays in the home under another name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from circus_failover.init.contents import MERGE_DEPTH, Branch, Item
from circus_failover.init.steps import Kind, Step
from circus_failover.policy.gate import Divergence, Entry, Failure
from circus_failover.problems import printable
from circus_failover.settings import DEFAULT_LINKS, Account

SHOWN = 10
"""So many collisions are listed; the rest is a number."""
FIXED = (
    *(Divergence.MISSING_LINK, Divergence.REAL_FOLDER, Divergence.HOME_MISSING, Divergence.ROOT_MISSING),
    Divergence.DANGLING,
)
"""What is wrong now and will not be after an init."""


@dataclass(frozen=True)
class Agent:
    """One agent as wished: its identity, where it works, and whose account it uses."""

    identity: str
    working_dir: Path
    account: Account | None


@dataclass(frozen=True)
class Wish:
    """What the operator wants."""

    folder: Path
    """Where the files go."""
    state_dir: Path
    root: Path | None
    """The shared folder; None: nothing is shared."""
    accounts: tuple[Account, ...]
    agents: tuple[Agent, ...]
    program: str | None = None
    """The command line that every agent runs in place of its client."""
    new: frozenset[str] = frozenset()
    """The accounts whose home may be made."""
    move_data: bool = False
    force: bool = False


@dataclass(frozen=True)
class HomeGround:
    """What stands in one home."""

    there: bool
    items: Mapping[str, Item] = field(default_factory=dict, hash=False)
    mode: int = 0
    mtime_ns: int = 0
    aside: Mapping[str, str] = field(default_factory=dict, hash=False)
    """For each name, a free path in the home under which a copied folder can stay."""


@dataclass(frozen=True)
class Ground:
    """What is there now, as far as a plan depends on it."""

    homes: Mapping[str, HomeGround] = field(hash=False)
    """By the account's name."""
    shared: Mapping[str, Item] = field(hash=False)
    """What stands in the shared root, by name."""
    device: int
    """The file system of the shared root, or of what it will be made in."""
    missing: Mapping[str, tuple[str, ...]] = field(hash=False)
    """For the root and each home: the folders that have to be made, the outermost first."""
    backups: Mapping[str, str] = field(hash=False)
    """The files that are there already, each with the path of its backup."""
    failures: tuple[Failure, ...] = ()
    """What the gate says of it all."""
    around: tuple[str, ...] = ()
    """The accounts in whose home the shared root is."""


@dataclass(frozen=True)
class Move:
    """Data that changes its place, for an operator to agree to."""

    account: str
    source: str
    target: str
    files: int
    size: int
    """Bytes."""
    copied: bool
    """It crosses file systems: copied, compared, and the source kept as `aside`."""
    merged: bool
    """There is a folder of this name already, whose content it joins."""
    aside: str = ""


@dataclass(frozen=True)
class Plan:
    """What an init would do; with a refusal it does nothing."""

    steps: tuple[Step, ...]
    moves: tuple[Move, ...]
    refusals: tuple[str, ...]


def make(wish: Wish, ground: Ground, files: Mapping[str, str]) -> Plan:
    """Return what is to be done.

    Args:
        wish: what the operator wants.
        ground: what is there.
        files: the files to be written: their text by path.
    """
    planner = _Planner(wish, ground)
    refusals = [failure.message for failure in ground.failures if failure.kind not in FIXED]
    for account in wish.accounts:
        if not ground.homes[account.name].there and account.name not in wish.new:
            home = printable(str(account.home))
            refusals.append(
                f"account {account.name}: home {home}: nothing there; correct the path, "
                "or make it with --second-account NAME=HOME"
            )
    for name in ground.around:
        root = printable(str(wish.root))
        refusals.append(f"account {name}: the shared folder {root} is in its home: --shared names another")
    if wish.root is not None:
        planner.folders(str(wish.root))
    for account in wish.accounts:
        planner.home(account)
    refusals += planner.refusals
    if planner.moves and not wish.move_data:
        refusals.append(
            "account homes hold data where links are to be: --move-data moves it to the shared folder "
            "(init --undo moves it back), --no-shared lets each account keep its own"
        )
    for path in files:
        if path in ground.backups and not wish.force:
            refusals.append(f"{printable(path)}: there is one already; --force replaces it, keeping a backup")
        if path in ground.backups:
            planner.steps.append(Step(Kind.RENAME, path, ground.backups[path]))
    planner.steps += [Step(Kind.WRITE, path, text=text) for path, text in files.items()]
    return Plan(tuple(planner.steps), tuple(planner.moves), tuple(dict.fromkeys(refusals)))


class _Planner:
    """Collects steps, knowing what the shared folders will hold by then."""

    def __init__(self, wish: Wish, ground: Ground) -> None:
        self.wish, self.ground = wish, ground
        self.steps: list[Step] = []
        self.moves: list[Move] = []
        self.refusals: list[str] = []
        self._made: set[str] = set()
        self._shared = dict(ground.shared)

    def folders(self, path: str) -> None:
        """Make a folder, with those above it that are missing."""
        for folder in self.ground.missing.get(path, ()):
            if folder not in self._made:
                self._made.add(folder)
                self.steps.append(Step(Kind.FOLDER, folder, mode=0o700))

    def home(self, account: Account) -> None:
        """Make a home as its account needs it."""
        ground = self.ground.homes[account.name]
        self.folders(str(account.home))
        if self.wish.root is None:
            return
        if ground.there:
            self._keep(str(account.home), Branch(True, ground.mode, ground.mtime_ns))
        for name in DEFAULT_LINKS[account.runtime]:
            path = os.path.join(account.home, name)
            item = ground.items.get(name, Item(Entry.MISSING))
            if item.entry is Entry.FOLDER:
                self._data(account, name, path, item, ground.aside.get(name, ""))
            self._shared_folder(name)
            if item.entry in (Entry.FOLDER, Entry.MISSING):
                self.steps.append(Step(Kind.LINK, path, self._target(name)))

    def _target(self, name: str) -> str:
        return os.path.join(str(self.wish.root), name)

    def _shared_folder(self, name: str) -> None:
        there = self._shared.get(name, Item(Entry.MISSING))
        if there.entry is Entry.MISSING:
            self.steps.append(Step(Kind.FOLDER, self._target(name), mode=0o700))
            self._shared[name] = Item(Entry.FOLDER, Branch(True))

    def _keep(self, path: str, branch: Branch) -> None:
        if branch.mtime_ns == 0:  # made by this very init
            return
        self.steps.append(Step(Kind.KEEP_TIMES, path, mode=branch.mode, mtime_ns=branch.mtime_ns))

    def _data(self, account: Account, name: str, path: str, item: Item, aside: str) -> None:
        """Bring what a home's own folder holds into the shared one."""
        target, there = self._target(name), self._shared.get(name, Item(Entry.MISSING))
        if item.trouble or there.trouble:
            self.refusals.append(f"{printable(path)} cannot be moved: {item.trouble or there.trouble}")
            return
        if there.entry not in (Entry.MISSING, Entry.FOLDER):
            self.refusals.append(f"{printable(target)}: expected a folder, found a {there.entry}")
            return
        copied = item.device != self.ground.device
        merged = there.entry is Entry.FOLDER
        if item.files or item.tree.names:
            kept = aside if copied else ""
            self.moves.append(Move(account.name, path, target, item.files, item.size, copied, merged, kept))
        elif merged:
            self.steps.append(self._emptied(path, item.tree))
            return
        if merged:
            tree, twice = self._union(path, item.tree, target, there.tree, MERGE_DEPTH.get(name, 0), copied)
            self._refuse_twice(path, target, twice)
            if not copied:
                self.steps.append(self._emptied(path, item.tree))
        else:
            tree = item.tree
            self.steps.append(Step(Kind.COPY if copied else Kind.RENAME, path, target))
        if copied:
            self.steps.append(Step(Kind.RENAME, path, aside))
        self._shared[name] = replace(there, entry=Entry.FOLDER, tree=tree)

    def _emptied(self, path: str, branch: Branch) -> Step:
        return Step(Kind.REMOVE_EMPTY, path, mode=branch.mode, mtime_ns=branch.mtime_ns)

    def _union(
        self, source: str, mine: Branch, target: str, there: Branch, depth: int, copied: bool
    ) -> tuple[Branch, list[str]]:
        """Move what is in one folder into another; return what that holds then, and the names in both."""
        names, twice = dict(there.names), []
        self._keep(target, there)
        if not copied:
            self._keep(source, mine)
        for name, branch in sorted(mine.names.items()):
            old, new = os.path.join(source, name), os.path.join(target, name)
            other = names.get(name)
            if other is None:
                self.steps.append(Step(Kind.COPY if copied else Kind.RENAME, old, new))
                names[name] = branch
            elif other.folder and branch.folder and depth > 0:
                names[name], more = self._union(old, branch, new, other, depth - 1, copied)
                twice += more
                if not copied:
                    self.steps.append(self._emptied(old, branch))
            else:
                twice.append(new)
        return replace(there, names=names), twice

    def _refuse_twice(self, source: str, target: str, twice: list[str]) -> None:
        if twice:
            shown = ", ".join(printable(os.path.relpath(path, target)) for path in twice[:SHOWN])
            more = f" and {len(twice) - SHOWN} more" if len(twice) > SHOWN else ""
            self.refusals.append(
                f"{printable(source)} and {printable(target)} cannot become one folder: both have "
                f"{shown}{more}; keep the one you want under this name and move the other away"
            )


MOVES = (Kind.RENAME, Kind.COPY, Kind.REMOVE_EMPTY)


def homes_with(kinds: Sequence[Kind], wish: Wish, plan: Plan) -> Iterator[Account]:
    """Yield the accounts in whose homes a plan has steps of these kinds."""
    for account in wish.accounts:
        inside = str(account.home) + "/"
        if any(step.kind in kinds and step.path.startswith(inside) for step in plan.steps):
            yield account
