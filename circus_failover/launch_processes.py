"""Which processes belong to a launch, and which only look as if: by number and what they carry, not by name.

A process belongs to a launch when it is in its tree, carries its name (`FAILOVER_LAUNCH`), or was seen in its
tree while it lived. This only looks: `ending_work` ends, and leaves alone whatever is not proven to belong.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import process_table, tmux
from circus_failover.canary import trees
from circus_failover.process_table import ProbeFailed, ProcessId

if TYPE_CHECKING:
    from circus_failover.ending_work import Order


@dataclass(frozen=True)
class Found:
    """What there is of a launch."""

    own: tuple[ProcessId, ...]
    """Proven to belong to it; some may have ended."""
    strangers: tuple[ProcessId, ...]
    """Running, and not proven: another launch of the same agent, or another process by a remembered pid."""


def find(order: Order) -> Found:
    """Return the processes of the launch that an order is about, and those that only look like it."""
    carrying, others = _carrying(order)
    seen, recycled = _told_apart([*_seen_before(order.tree), *_seen_while_it_lived(order)])
    tree = process_table.descendants(order.agent) if order.agent is not None else []
    own = dict.fromkeys([*tree, *carrying, *seen])
    # A server inherits the variables of the client that started it; it is no agent. Neither is a keeper.
    infrastructure = {order.server} if order.server else set()
    # circusd may have been started from an agent's own shell: it, its keepers and plugins are nobody's agent.
    supervisor = process_table.identify(order.supervisor)
    if supervisor is not None:
        infrastructure.update(process_table.descendants(supervisor))
    # By pid alone: whoever listens there now is a server, also one that replaced the recorded one.
    never = {os.getpid(), tmux.server_pid(order.socket)}

    def ours(process: ProcessId) -> bool:
        return process not in infrastructure and process.pid not in never

    strangers = dict.fromkeys(process for process in [*others, *recycled] if process not in own)
    return Found(own=tuple(filter(ours, own)), strangers=tuple(filter(ours, strangers)))


def carries(order: Order, pid: int) -> bool:
    """Say whether a process carries the name of the launch that an order is about."""
    environment = process_table.environ(pid) if order.launch and process_table.LINUX else None
    return environment is not None and f"FAILOVER_LAUNCH={order.launch}".encode() in environment


def called(process: ProcessId) -> str:
    """Return what a process calls itself, for people; it proves nothing."""
    if process_table.LINUX:
        try:
            return Path(f"/proc/{process.pid}/comm").read_text(errors="replace").strip()
        except OSError:
            return "?"
    import psutil

    try:
        return psutil.Process(process.pid).name()
    except psutil.Error:
        return "?"


def _carrying(order: Order) -> tuple[list[ProcessId], list[ProcessId]]:
    """Return what carries this launch's name, and what carries that of another launch of the same agent.

    One look at every process for both. Empty where another process's environment cannot be read (not Linux).
    """
    own: list[ProcessId] = []
    others: list[ProcessId] = []
    if not process_table.LINUX:
        return own, others
    launch = f"FAILOVER_LAUNCH={order.launch}".encode() if order.launch else None
    # Identity alone is not unique on a host: another fleet may have an agent of the same name.
    agent = {f"FAILOVER_IDENTITY={order.identity}".encode()}
    agent.add(os.fsencode(f"FAILOVER_STATE_DIR={order.state_dir}"))
    for pid, stat in process_table.table().items():
        environment = process_table.environ(pid) if stat.run_state not in "ZX" else None
        if environment is None:
            continue
        if launch in environment:
            own.append(stat.id)
        elif agent <= environment and any(entry.startswith(b"FAILOVER_LAUNCH=") for entry in environment):
            others.append(stat.id)
    return own, others


def _told_apart(remembered: Iterable[ProcessId]) -> tuple[list[ProcessId], list[ProcessId]]:
    """Return which of these processes still run, and who has the pids of the others by now."""
    same: list[ProcessId] = []
    others: list[ProcessId] = []
    for process in remembered:
        try:
            now = process_table.read(process.pid)
        except ProbeFailed:
            same.append(process)
            continue
        if now is not None and now.run_state not in "ZX":
            (same if now.id == process else others).append(now.id)
    return same, others


def _seen_before(tree: Path) -> Iterator[ProcessId]:
    """Yield what an earlier worker of the same end had found."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        notes = json.loads(tree.read_bytes())
        # A list in the notes of a worker of an earlier version.
        for pid, start in notes["processes"] if isinstance(notes, dict) else notes:
            yield ProcessId(int(pid), int(start))


def _seen_while_it_lived(order: Order) -> Iterable[ProcessId]:
    """Return the launch's tree as it was last written down; nothing where nobody did."""
    if order.launch is None or order.state_dir is None:
        return ()
    return trees.read(order.state_dir).get(order.launch, ())
