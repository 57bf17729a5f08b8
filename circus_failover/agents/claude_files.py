"""Where Claude Code keeps what, and whose it is: its config file, status files and transcripts.

Facts are of Claude Code 2.1.329. A status file (`sessions/PID.json`) stays after SIGKILL, and now and then
after SIGTERM, and a pid is given away again: it counts only for the process whose start time it names. What
has another form than expected is as good as not there. It reads, and never writes or decides.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover import process_table
from circus_failover.agents import client_file, transcripts
from circus_failover.process_table import LINUX, ProbeFailed, ProcessId

HOME_VARIABLE = "CLAUDE_CONFIG_DIR"
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LARGEST = 16 * 1024 * 1024
"""Of a file that is read whole. `.claude.json` of a long-time user has a megabyte."""
HEAD = 256 * 1024
"""So much of a transcript's beginning is searched for the first prompt."""
CLIENT_DEPTH = 2
"""How far below the pane's own process a client is looked for: a shell, and a script that it runs."""
EARLY_SECS = 2.0
"""By how much `startedAt` may be before the start of its process: two clocks, one of them in ticks."""
AHEAD_SECS = 60.0
"""A time further in the future than this is none: it would make an agent busy for ever."""


def user_home(variables: Mapping[str, str]) -> Path:
    """Return the home folder of the user that an agent runs as."""
    return Path(variables.get("HOME") or os.path.expanduser("~"))


def default_home(variables: Mapping[str, str]) -> Path:
    """Return the account home that Claude Code uses when nothing names another one."""
    return user_home(variables) / ".claude"


def is_default(home: Path, variables: Mapping[str, str]) -> bool:
    """Say whether a home is the one that Claude Code uses by itself."""
    return os.path.normpath(home) == os.path.normpath(default_home(variables))


def config_file(home: Path, variables: Mapping[str, str]) -> Path:
    """Return the file with what was agreed to: trust, keys, onboarding.

    It is in the home when CLAUDE_CONFIG_DIR names that, even as `~/.claude`; else it is `~/.claude.json`.
    """
    if variables.get(HOME_VARIABLE) or not is_default(home, variables):
        return home / ".claude.json"
    return user_home(variables) / ".claude.json"


def load(path: Path) -> tuple[dict[str, Any], str]:
    """Return an object of JSON from a file, and what is wrong with the file: nothing when it is not there."""
    try:
        raw = client_file.read(path, LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except OSError as error:
        return {}, f"it cannot be read ({error.strerror or error})"
    try:
        # A byte order mark is tolerated, as by the client.
        content = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}, "it is no JSON"
    return (content, "") if isinstance(content, dict) else ({}, "it is no JSON object")


def text(value: object) -> str:
    """Return a value where it is a text; else none."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """Return a value where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """Return a value where it is a list; else an empty one."""
    return value if isinstance(value, list) else []


def seconds(value: object, unit: float = 1.0) -> float | None:
    """Return a time as epoch seconds; None where it is no number, or none that can be a time of now.

    Args:
        value: what was read.
        unit: how many seconds its unit has.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value) * unit
    except OverflowError:
        return None
    # Also False for a value that is no number; 1e10 s is the year 2286.
    return found if 0.0 < found < 1e10 else None


def past(at: float | None) -> float | None:
    """Return a time unless it lies in the future."""
    return at if at is not None and at <= time.time() + AHEAD_SECS else None


# -- status files -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """What a running Claude Code says of itself."""

    conversation: str | None
    word: str
    """`idle`, `busy`, `waiting`, `shell`; empty: it does not say yet, or not in a word."""
    waiting_for: str
    at: float | None
    """Epoch seconds since when it is so."""
    begun: float | None
    """Epoch seconds at which its session began."""


def status(home: Path, process: ProcessId, depth: int = CLIENT_DEPTH) -> Status | None:
    """Return what a process says of itself, or its client below it; None when nothing is certainly theirs.

    Args:
        home: the account home.
        process: the client, or a shell or script that has started it.
        depth: how far below the process the client may be.
    """
    own = _own_status(home, process)
    # A client that says nothing of itself is not taken for another one that it runs as a tool.
    if own is None and depth > 0 and not _is_client(process.pid):
        for child in process_table.children(process):
            own = status(home, child, depth - 1)
            if own is not None:
                break
    return own


def _is_client(pid: int) -> bool:
    """Say whether a process is a Claude Code by its command line; also where that cannot be told."""
    words = process_table.command_line(pid)
    return words is None or any("claude" in os.path.basename(word) for word in words[:2])


def _own_status(home: Path, process: ProcessId) -> Status | None:
    record, _ = load(home / "sessions" / f"{process.pid}.json")
    if not record or owner(record, process.pid) != process or not process_table.may_run(process):
        return None
    conversation = text(record.get("sessionId"))
    return Status(
        conversation if UUID.fullmatch(conversation) else None,
        text(record.get("status")),
        text(record.get("waitingFor")),
        past(seconds(record.get("statusUpdatedAt"), 0.001)),
        past(seconds(record.get("startedAt"), 0.001)),
    )


def owner(record: Mapping[str, Any], pid: int) -> ProcessId | None:
    """Return the process that wrote a status file, running or not; None when that cannot be told.

    `procStart` is field 22 of `/proc/PID/stat`, as a text. Without it, and elsewhere, where its form is not
    known, it is the process that has the pid now, if the file says that it was begun after that was.
    """
    if record.get("pid", pid) != pid:
        return None
    start = record.get("procStart")
    if LINUX and start is not None:
        digits = str(start)
        return ProcessId(pid, int(digits)) if re.fullmatch(r"[0-9]{1,18}", digits) else None
    begun = seconds(record.get("startedAt"), 0.001)
    try:
        running = process_table.identify(pid)
    except ProbeFailed:
        return None
    if running is None or begun is None:
        return None
    since = time.time() - process_table.seconds_since(running.start)
    return running if begun >= since - EARLY_SECS else None


def statuses(home: Path) -> Iterator[tuple[Path, int, Mapping[str, Any]]]:
    """Yield each status file of a home, with its pid and what it says."""
    try:
        names = sorted(os.listdir(home / "sessions"))
    except OSError:
        return
    for name in names:
        stem, dot, suffix = name.partition(".")
        if dot and suffix == "json" and re.fullmatch(r"[0-9]{1,10}", stem):
            path = home / "sessions" / name
            yield path, int(stem), load(path)[0]


# -- transcripts --------------------------------------------------------------------------------------------


def transcript(home: Path, working_dir: Path, conversation: str) -> Path | None:
    """Return the transcript of a conversation; None when there is none yet.

    The client finds it in the folder of any project and goes on writing there, wherever it was started. The
    folder is named for the real path of the working directory.
    """
    if not UUID.fullmatch(conversation):
        return None
    projects, name = home / "projects", f"{conversation}.jsonl"
    own = projects / re.sub(r"[^a-zA-Z0-9]", "-", os.path.realpath(working_dir)) / name
    if own.is_file():
        return own
    found: list[tuple[float, str]] = []
    try:
        with os.scandir(projects) as folders:
            for folder in folders:
                path = os.path.join(folder.path, name)
                if os.path.isfile(path):
                    found.append((os.stat(path).st_mtime, path))
    except OSError:
        pass
    return Path(max(found)[1]) if found else None


def has_turns(path: Path) -> bool:
    """Say whether a transcript holds anything of a conversation: a prompt or an answer."""
    try:
        with client_file.opened(path) as file:
            lines = file.read(HEAD).split(b"\n")
    except OSError:
        return False
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and is_turn(record):
            return True
    return any(is_turn(record) for record in transcripts.last_records(path))


def is_turn(record: Mapping[str, Any]) -> bool:
    """Say whether a record is something that was said in a conversation itself, by either side."""
    aside = record.get("isSidechain") is True or record.get("isMeta") is True
    return record.get("type") in ("user", "assistant") and not aside and bool(mapping(record.get("message")))


def sub_agents_time(path: Path, newer_than: float) -> float | None:
    """Return the time of the newest entry in the transcripts of a conversation's sub-agents.

    Args:
        path: the transcript of the conversation.
        newer_than: epoch seconds; what is older does not matter, so such files are not even opened.
    """
    files: list[tuple[float, str]] = []
    try:
        with os.scandir(path.with_suffix("") / "subagents") as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl"):
                    files.append((entry.stat().st_mtime, entry.path))
    except OSError:
        pass
    best: float | None = None
    for changed, name in sorted(files, reverse=True):
        # A file is changed no earlier than its newest entry was made.
        if changed < (newer_than if best is None else best):
            break
        at = past(transcripts.newest_time(Path(name)))
        if at is not None and (best is None or at > best):
            best = at
    return best
