"""The figures of an agent's real process tree, in the shape that Circus's `stats` prints.

A tree is walked by `/proc/PID/task/*/children` where the kernel has it, because psutil's walk reads every
process of the host (25 ms at 1,500).
"""

from __future__ import annotations

import glob
import os
from typing import Any

import psutil
from circus.util import get_info

from circus_failover import process_table
from circus_failover.process_table import ProcessId

_known: dict[ProcessId, psutil.Process] = {}


def replace_with_tree(stats: dict[str, Any], root: ProcessId) -> None:
    """Replace a keeper's figures by those of the agent's tree; unchanged when it cannot be read.

    Args:
        stats: the mapping Circus will answer with, changed in place. Beside Circus's own keys it gets
            `pids` (the whole tree), `tree_rss` (bytes) and `tree_cpu` (per cent of one core).
        root: the agent's own process.
    """
    tree = tree_of(root.pid)
    infos = []
    for pid in tree:
        info = _info(pid)
        if info is not None:
            infos.append(info)
    if not infos or infos[0][0].pid != root.pid:
        return
    rss = sum(_rss(process) for process, _ in infos)
    cpu = sum(info["cpu"] for _, info in infos if isinstance(info["cpu"], (int, float)))
    stats.clear()
    stats.update(infos[0][1])
    stats["children"] = [info for _, info in infos[1:]]
    stats["pids"] = [process.pid for process, _ in infos]
    stats["tree_rss"] = rss
    stats["tree_cpu"] = round(cpu, 1)


def tree_of(root: int) -> list[int]:
    """Return a process and all its descendants, parents before children."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop(0)
        found.append(pid)
        queue.extend(_children(pid))
    return found


def _children(pid: int) -> list[int]:
    if os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        found: list[int] = []
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            try:
                with open(path) as file:
                    found.extend(int(child) for child in file.read().split())
            except OSError:
                continue
        return found
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _info(pid: int) -> tuple[psutil.Process, dict[str, Any]] | None:
    """Return one process's figures; its object is kept, since cpu per cent is since the last question."""
    identity = process_table.identify(pid)
    if identity is None:
        return None
    try:
        process = _known.get(identity) or psutil.Process(pid)
        info: dict[str, Any] = get_info(process)
    except (psutil.Error, OSError, ValueError):
        return None
    if len(_known) > 4096:
        _known.clear()
    _known[identity] = process
    info.setdefault("started", info.get("create_time"))
    info.setdefault("wid", 1)
    return process, info


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
