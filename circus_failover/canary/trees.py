"""The processes of each launch as last seen, in one small file for those who come when its server has died.

Of a live launch: its own process, all that is below it, and what was below it once and still lives, whoever
its parent is by now. Of one that has ended: what was seen last, then what is left. Nothing is ended here.
"""

from __future__ import annotations

import json
import os
from collections import namedtuple

from circus_failover import process_table
from circus_failover.canary import watched
from circus_failover.process_table import Origin, ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

WHOLE_SECS = 60.0
"""How long the tree of a launch that has ended is kept whole: the snapshot of its death may yet come.

What is left of it is kept for as long as it lives: the next launch, which ends it first, may come late.
"""


class Tree(namedtuple("Tree", ("processes", "ended"))):
    """The processes of one launch."""

    __slots__ = ()
    processes: Mapping[ProcessId, str]
    """Their names."""
    ended: float | None
    """Since when it is known to have ended, in monotonic seconds; None: it was alive."""


# -- what follows from one look at the process table -------------------------------------------------


def follow(
    before: Mapping[str, Tree],
    live: Mapping[str, ProcessId],
    apart: Collection[ProcessId],
    origins: Mapping[int, Origin],
    now: float,
) -> dict[str, Tree]:
    """Return the tree of each launch after one look.

    Args:
        before: the trees after the last look.
        live: the agent's own process of each launch that lives, by the launch's name.
        apart: what belongs to no launch, with all that is below it, wherever it was started from: tmux
            servers, circusd.
        origins: every process there is, by pid.
        now: monotonic seconds.
    """
    children: dict[int, list[Origin]] = {}
    for origin in origins.values():
        children.setdefault(origin.parent, []).append(origin)
    apart = {*apart, *live.values()}
    after: dict[str, Tree] = {}
    for launch in {**before, **live}:
        root, known = live.get(launch), before.get(launch, Tree({}, None))
        starts = known.processes if root is None else (root, *known.processes)
        here = _below(starts, root, apart, children, origins)
        if root in here:
            after[launch] = Tree(here, None)
            continue
        ended = now if known.ended is None else known.ended
        if now - ended <= WHOLE_SECS and known.processes:
            after[launch] = Tree({**known.processes, **here}, ended)
        elif here:
            after[launch] = Tree(here, ended)
    return after


def _below(
    starts: Iterable[ProcessId],
    root: ProcessId | None,
    apart: Collection[ProcessId],
    children: Mapping[int, list[Origin]],
    origins: Mapping[int, Origin],
) -> dict[ProcessId, str]:
    """Return those of some processes that are still there, and all that came from them."""
    found: dict[ProcessId, str] = {}
    queue = list(starts)
    for process in queue:
        origin = origins.get(process.pid)
        if process in found or origin is None or origin.id != process:
            continue
        if process in apart and process != root:
            continue
        found[process] = origin.name
        # The pid of a parent that has ended may be another's by now; no child is older than its parent.
        queue.extend(child.id for child in children.get(process.pid, ()) if child.id.start >= process.start)
    return found


# -- looking, and the file ---------------------------------------------------------------------------


def read(state_dir: str) -> dict[str, dict[ProcessId, str]]:
    """Return the processes of each launch as last seen, with their names; nothing when the file is no use.

    Start times belong to the boot in which it was written.
    """
    try:
        with open(os.path.join(state_dir, watched.TREES), "rb") as file:
            raw = json.loads(file.read())
        return {
            str(launch): {ProcessId(int(pid), int(start)): str(name) for pid, start, name in processes}
            for launch, processes in raw.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


class TreeFile:
    """Follows the trees of all launches, and keeps the file as they are."""

    def __init__(self, state_dir: str, *, same_boot: bool) -> None:
        """Args:
        state_dir: the state directory.
        same_boot: the file that is there was written in this boot of the host, and is gone on with.
        """
        self._state_dir = state_dir
        self._written = read(state_dir) if same_boot else None
        """What is in the file; None: what is there must not stay."""
        self._trees = {launch: Tree(processes, None) for launch, processes in (self._written or {}).items()}
        self._origins: dict[int, Origin] = {}

    def look(self, live: Mapping[str, ProcessId], apart: Collection[ProcessId], now: float) -> None:
        """Look at the process table once, and write the file where something has changed.

        Args:
            live: the agent's own process of each launch that lives, by the launch's name.
            apart: what belongs to no launch, with all that is below it.
            now: monotonic seconds.

        Raises:
            OSError: the table could not be read, or the file not be written; the next look makes up for it.
        """
        self._origins = process_table.origins(self._origins)
        self._trees = follow(self._trees, live, apart, self._origins, now)
        trees = {launch: dict(tree.processes) for launch, tree in self._trees.items()}
        if trees != self._written:
            _write(os.path.join(self._state_dir, watched.TREES), trees)
            self._written = trees


def _write(path: str, trees: Mapping[str, Mapping[ProcessId, str]]) -> None:
    content = {
        launch: [[process.pid, process.start, name] for process, name in processes.items()]
        for launch, processes in trees.items()
    }
    watched.put(path, json.dumps(content))
