"""The files that explain deaths: one snapshot a death, whole or not at all, and only so many of them.

A forked child writes them, after the deaths are recorded. What is in them is up to `document.py`, which that
child alone imports.
"""

from __future__ import annotations

import os
import re
import time

from circus_failover.canary import watched
from circus_failover.logfmt import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from circus_failover.canary.death import Death

KEEP_FILES = 200
KEEP_BYTES = 100 * 1024 * 1024
STALE_SECS = 3600.0
"""How old the half-written file of a child is that will not finish it."""

_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-\d+\.json")


def path_for(state_dir: str, at: float, pid: int) -> str:
    """Return the path of the snapshot of a server's death; names sort by time.

    Args:
        state_dir: the state directory.
        at: when it was noticed, in epoch seconds.
        pid: the server's.
    """
    moment = timestamp(at).replace("-", "").replace(":", "")
    return os.path.join(state_dir, watched.FORENSICS, f"{moment}-{pid}.json")


def write_all(state_dir: str, deaths: list[Death], armed: Mapping[str, Mapping[str, int]]) -> None:
    """Write the snapshots of deaths of one moment, and remove the oldest above what is kept. Never raises.

    Not more are written than are kept. It may take a second, and to read another process's environment may
    take as long as that process wants: only for a child that has an alarm.

    Args:
        state_dir: the state directory.
        deaths: what happened.
        armed: the OOM counters at arming (`host.counters`) by the server's name (`Watched.name`).
    """
    folder = os.path.join(state_dir, watched.FORENSICS)
    try:
        from circus_failover.canary import document
        from circus_failover.canary.scene import Scene

        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        newest = sorted(deaths, key=lambda death: death.at)[-KEEP_FILES:]
        scene = Scene(state_dir, [death.watched for death in newest])
        for death in newest:
            path = death.forensics or path_for(state_dir, death.at, death.watched.server.pid)
            try:
                _put(path, document.render(scene, death, armed.get(death.watched.name, {})))
            except Exception:
                # One that fails must not cost the others theirs.
                continue
        _prune(folder)
    except Exception:
        return


def _put(path: str, content: bytes) -> None:
    """Put a whole file in place, or none."""
    temporary = f"{path}.tmp"
    try:
        handle = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            while content:
                content = content[os.write(handle, content) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _prune(folder: str) -> None:
    """Remove the oldest snapshots above KEEP_FILES or KEEP_BYTES, and what an interrupted child left."""
    room = KEEP_BYTES
    kept = 0
    for name in sorted(os.listdir(folder), reverse=True):
        path = os.path.join(folder, name)
        try:
            found = os.lstat(path)
            if _NAME.fullmatch(name):
                room -= found.st_size
                kept += 1
                if kept > KEEP_FILES or room < 0:
                    os.unlink(path)
            elif name.endswith(".json.tmp") and time.time() - found.st_mtime > STALE_SECS:
                os.unlink(path)
        except OSError:
            continue
