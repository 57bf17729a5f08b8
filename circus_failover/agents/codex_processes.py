"""What the process table says of Codex: which conversations a process has open, and who else has one.

Codex holds a lock on `thread-writer-locks/<id>.lock` for each conversation that it may write, from before the
first prompt until its end (flock(2), so a killed process leaves the file and no lock), and keeps the
transcript open from the first prompt on (0.169.0). It only looks, and signals nobody. Without `/proc` psutil
is asked for open files, which other users' processes and some systems do not give.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from circus_failover import process_table
from circus_failover.agents import client_file
from circus_failover.agents.runtime import Writer
from circus_failover.process_table import LINUX, ProbeFailed, ProcessId

LOCKS = "thread-writer-locks"
_ID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_LOCK = re.compile(rf".*/{LOCKS}/{_ID}\.lock")
_ROLLOUT = re.compile(rf".*/rollout-[^/]*-{_ID}\.jsonl")
_CALL = b"CODEX_TOOL_CALL_ID="
"""What the shell tool gives to what it runs, and servers of tools do not have."""


@dataclass(frozen=True)
class Held:
    """What one process has open."""

    process: ProcessId
    locks: Mapping[str, Path] = field(default_factory=dict)
    """Its lock files, by conversation."""
    rollouts: Mapping[str, Path] = field(default_factory=dict)
    """Its transcripts, by conversation."""


def held(process: ProcessId) -> Held:
    """Return what a process has open; nothing where that cannot be told."""
    locks: dict[str, Path] = {}
    rollouts: dict[str, Path] = {}
    for path in _open_files(process.pid):
        if match := _LOCK.fullmatch(path):
            locks[match[1]] = Path(path)
        elif match := _ROLLOUT.fullmatch(path):
            rollouts[match[1]] = Path(path)
    return Held(process, locks, rollouts)


def client(process: ProcessId) -> Held:
    """Return what the client has open: the process itself, or its child where a script has started it.

    What npm installs as `codex` is a script that has the real client as its child with Node.js before 22.15,
    and becomes it with a newer one.
    """
    own = held(process)
    if own.locks or own.rollouts:
        return own
    found = (held(child) for child in process_table.children(process))
    return next((one for one in found if one.locks or one.rollouts), own)


def _open_files(pid: int) -> list[str]:
    if not LINUX:
        return _open_files_portable(pid)
    folder, found = f"/proc/{pid}/fd", []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"{folder}/{name}"))
    return found


def _open_files_portable(pid: int) -> list[str]:
    import psutil

    try:
        return [file.path for file in psutil.Process(pid).open_files()]
    except (psutil.Error, OSError):
        return []


def tools(process: ProcessId) -> tuple[ProcessId, ...]:
    """Return the running commands of a client's shell tool: also those that have outlived their turn.

    Linux only: elsewhere another process's environment cannot be read reliably, and nothing is seen.
    """
    if not LINUX:
        return ()
    return tuple(
        child
        for child in process_table.children(process)
        if any(entry.startswith(_CALL) for entry in process_table.environ(child.pid) or ())
    )


def open_count(process: ProcessId) -> int:
    """Return how many files a process has open; 0 where that cannot be told (Linux before 6.2)."""
    try:
        return os.stat(f"/proc/{process.pid}/fd").st_size
    except OSError:
        return 0


# -- writers -----------------------------------------------------------------------------------------------


LOCK_LOOKS = 3
"""The kernel lists its locks a page at a time, by their number in the list: one that is given up meanwhile
makes the reader skip another (seq_file, fs/locks.c, Linux 6.18). So an empty list is looked at again."""


def writers(homes: Sequence[Path], conversation: str) -> tuple[Writer, ...]:
    """Return the running processes that have a conversation open, or are being started to continue it.

    A script and the client that it has started are one: the client, once it has anything open. A process of
    which nothing can be read is not found; neither is anything but a command line without `/proc` and where
    psutil gives no open files.
    """
    evidence: dict[int, str] = {}
    for pid, words in _command_lines():
        if not any("codex" in word for word in words[:2]):
            continue
        path = _has_open(pid, conversation)
        if path is not None:
            evidence[pid] = path
        elif "resume" in words and conversation in words:
            evidence[pid] = f"{' '.join(words)[:300]}"
    for pid, path in _lock_holders(homes, conversation).items():
        evidence.setdefault(pid, path)
    found: dict[int, process_table.ProcessStat] = {}
    for pid in evidence:
        with contextlib.suppress(ProbeFailed):
            stat = process_table.read(pid)
            if stat is not None and stat.run_state not in "ZX":
                found[pid] = stat
    scripts = {stat.parent for stat in found.values()}
    return tuple(
        Writer(stat.id, _home_of(pid, homes), evidence[pid])
        for pid, stat in sorted(found.items())
        if pid not in scripts
    )


def _has_open(pid: int, conversation: str) -> str | None:
    for path in _open_files(pid):
        match = _LOCK.fullmatch(path) or _ROLLOUT.fullmatch(path)
        if match is not None and match[1] == conversation:
            return path
    return None


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for pid in process_table.pids():
        words = process_table.command_line(pid)
        if words is not None:
            yield pid, words


def _lock_holders(homes: Sequence[Path], conversation: str) -> dict[int, str]:
    """Return who holds the conversation's lock, as the kernel lists it (proc(5), /proc/locks).

    Finds also what no longer has `codex` in its command line, and what runs as another user.
    """
    nodes: dict[str, str] = {}
    for home in homes:
        path = home / LOCKS / f"{conversation}.lock"
        with contextlib.suppress(OSError):
            stat = os.stat(path)
            device = stat.st_dev
            nodes[f"{os.major(device):02x}:{os.minor(device):02x}:{stat.st_ino}"] = str(path)
    if not (LINUX and nodes):
        return {}
    for _ in range(LOCK_LOOKS):
        holders: dict[int, str] = {}
        with contextlib.suppress(OSError), open("/proc/locks") as file:
            for line in file:
                # `5: FLOCK  ADVISORY  WRITE 2445 fe:00:2311023 0 EOF`; one that waits has `->` after it.
                words = line.split()
                if len(words) >= 6 and words[1] == "FLOCK" and words[5] in nodes and words[4].isdigit():
                    holders[int(words[4])] = nodes[words[5]]
        holders.pop(0, None)
        if holders:
            break
    return holders


def _home_of(pid: int, homes: Sequence[Path]) -> Path:
    """Return the account home that a process was started with; where it does not say, its user's own."""
    own = os.path.expanduser("~/.codex")
    for entry in process_table.environ(pid) or ():
        if entry.startswith(b"CODEX_HOME="):
            own = os.fsdecode(entry.partition(b"=")[2])
    return next((home for home in homes if os.path.realpath(home) == os.path.realpath(own)), Path(own))


# -- the daemon --------------------------------------------------------------------------------------------


def daemon(home: Path) -> ProcessId | None:
    """Return the background server of an account home; None when none runs, or nothing can be told.

    Its file says pid and start time (0.169.0), and stays when it was killed.
    """
    try:
        said = json.loads(client_file.read(home / "app-server-daemon" / "daemon.pid"))
        pid, identity = int(said["pid"]), said.get("processIdentity")
        if LINUX:
            if identity.get("bootId") not in (None, process_table.boot_id()):
                return None
            process = ProcessId(pid, int(identity["startTicks"]))
        else:
            begun = time.mktime(time.strptime(said["processStartTime"], "%a %b %d %H:%M:%S %Y"))
            found = process_table.identify(pid)
            if found is None or abs(found.start / 1_000_000 - begun) > 2:
                return None
            process = found
        return process if process_table.alive(process) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    except ProbeFailed:
        return None
