"""Reports to circusd that survive it: one atomic file each, and a datagram that wakes its loop.

circusd is the only writer of the store. Workers, launchers and other processes drop a JSON file into
the spool folder; circusd takes the files in by name order, each once, and deletes a file only after
its effect is in the store. With circusd down the files wait: they are the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAKE_SOCKET = "wake.sock"


class Later(Exception):
    """A report cannot be taken in yet: it waits, and those behind it do not."""


def report_name(kind: str, now_ns: int | None = None) -> str:
    """Return a file name that sorts by time (nanoseconds) and cannot collide with another process's."""
    stamp = time.time_ns() if now_ns is None else now_ns
    return f"{stamp:020d}-{os.getpid()}-{kind}.json"


def send(folder: Path, report: dict[str, Any]) -> Path:
    """Write one report durably and wake circusd when it runs.

    Args:
        folder: the spool folder, which must exist.
        report: a JSON mapping with at least `kind`.

    Returns:
        The file that holds the report until circusd has taken it in.
    """
    target = folder / report_name(str(report["kind"]))
    temporary = folder / f".{target.name}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, json.dumps(report).encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(temporary, target)
    directory = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    wake(folder)
    return target


def wake(folder: Path) -> None:
    """Wake circusd's loop; nobody listening is no error, since the next start reads the folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.sendto(b"1", str(folder / WAKE_SOCKET))


def listen(folder: Path) -> socket.socket | None:
    """Return the bound datagram socket whose readiness means "look into the folder", or None.

    None when the path is too long for a socket: then the timer alone finds the reports.
    """
    path = folder / WAKE_SOCKET
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.setblocking(False)
    try:
        server.bind(str(path))
        os.chmod(path, 0o600)
    except OSError:
        server.close()
        return None
    return server


def drain(server: socket.socket) -> None:
    """Read away all datagrams, so that the loop sleeps again."""
    try:
        while server.recv(16):
            pass
    except OSError:
        pass


def take_in(folder: Path, apply: Callable[[str, dict[str, Any]], None]) -> list[str]:
    """Give every waiting report to `apply`, oldest first, and delete it afterwards.

    `apply` gets the file's name and the report; it must put the effect and the name into the store in
    one transaction, so that a report read twice (after a crash between the two) has one effect. A report
    that makes no sense, to this module or to `apply`, is set aside with the ending `.bad`, never deleted,
    and the ones behind it are taken in; so they are when `apply` raises `Later`, and it is left as it is.

    Returns:
        The names of the reports that were set aside.
    """
    bad = []
    for name in sorted(entry for entry in os.listdir(folder) if entry.endswith(".json") and entry[0] != "."):
        path = folder / name
        try:
            report = json.loads(path.read_bytes())
            if not isinstance(report, dict) or "kind" not in report:
                raise ValueError("a report is a mapping with a kind")
            sensible = True
        except FileNotFoundError:
            continue
        except (IsADirectoryError, ValueError):
            # Any other OSError (no descriptor left, say) says nothing about the report: it waits.
            sensible = False
        if sensible:
            try:
                apply(name, report)
            except Later:
                continue
            except (ValueError, LookupError, TypeError, AttributeError):
                sensible = False
        if sensible:
            path.unlink(missing_ok=True)
        else:
            os.replace(path, folder / f"{name}.bad")
            bad.append(name)
    return bad
