"""How far each target has been told, in a file: no restart of a plugin, circusd or host loses any of it.

One process at a time holds it. It has no addresses in it. What is to be told, and when, is decided elsewhere.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from circus_failover import private_file
from circus_failover.policy.telling import Item, Known, Progress
from circus_failover.process_table import ProcessId

FOLDER = "notify"
BOOK = "progress.json"
_LOCK = "lock"


class BookHeld(Exception):
    """Another process tells; the text says so."""


@dataclass(frozen=True)
class Attempt:
    """A message that is being sent by a process of its own."""

    name: str
    """Of the file in which that leaves what became of it."""
    began: float
    """Epoch seconds."""
    digest: bool
    process: ProcessId | None = None
    boot: str = ""


@dataclass(frozen=True)
class Entry:
    """What is remembered of one target."""

    progress: Progress
    newest_at: float = 0.0
    """When the newest notice happened that was looked at for it, in epoch seconds."""
    attempt: Attempt | None = None
    last: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What became of the last message: `at`, `ok`, `why`, `kind`, `count`."""


def folder(state_dir: Path) -> Path:
    """Return where progress and outcomes are."""
    return state_dir / FOLDER


def read(state_dir: Path) -> dict[str, Entry]:
    """Return what is remembered of each target, by name; nothing where there is no file.

    Raises:
        OSError: it cannot be read.
        ValueError: it makes no sense.
    """
    try:
        raw = json.loads((folder(state_dir) / BOOK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    try:
        return {str(name): _entry(entry) for name, entry in raw["targets"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder(state_dir) / BOOK} makes no sense: {error!r}") from error


class Book:
    """The file, held by this process."""

    def __init__(self, state_dir: Path) -> None:
        """Take it.

        Raises:
            BookHeld: another process has it.
            OSError: it cannot be made.
        """
        self.folder = folder(state_dir)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise BookHeld(f"{self.folder} is held by another Notify plugin: it tells") from error

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Put all of it on disk.

        Raises:
            OSError: it could not be; what was there before stays.
        """
        targets = {name: asdict(entry) for name, entry in entries.items()}
        private_file.replace(self.folder / BOOK, json.dumps({"targets": targets}))

    def outcome_path(self, attempt: Attempt) -> Path:
        """Return where the process that sends leaves what became of a message."""
        return self.folder / f"{attempt.name}.done"

    def outcome(self, attempt: Attempt) -> tuple[bool, str] | None:
        """Return whether a message was taken, and why not; None while nothing is known."""
        try:
            said = json.loads(self.outcome_path(attempt).read_text(encoding="utf-8"))
            return bool(said["ok"]), str(said["why"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            return False, f"what became of it cannot be read ({type(error).__name__})"

    def forget(self, attempt: Attempt) -> None:
        """Remove what became of a message, once that is in the book."""
        self.outcome_path(attempt).unlink(missing_ok=True)

    def tidy(self, entries: Mapping[str, Entry]) -> None:
        """Remove what became of messages to targets that are none any more."""
        wanted = {f"{entry.attempt.name}.done" for entry in entries.values() if entry.attempt is not None}
        for path in self.folder.glob("*.done"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock)


def _entry(raw: Mapping[str, Any]) -> Entry:
    progress = raw["progress"]
    return Entry(
        progress=Progress(
            cursor=int(progress["cursor"]),
            waiting=tuple(Item(**item) for item in progress["waiting"]),
            under_way=tuple(Item(**item) for item in progress["under_way"]),
            sent=tuple(float(one) for one in progress["sent"]),
            known={str(thing): _known(known) for thing, known in progress["known"].items()},
            failures=int(progress["failures"]),
            not_before=float(progress["not_before"]),
        ),
        newest_at=float(raw["newest_at"]),
        attempt=None if raw["attempt"] is None else _attempt(raw["attempt"]),
        last=dict(raw["last"]),
    )


def _known(raw: Mapping[str, Any]) -> Known:
    last = raw["last"]
    return Known(float(raw["at"]), int(raw["more"]), None if last is None else Item(**last))


def _attempt(raw: Mapping[str, Any]) -> Attempt:
    process = None if raw["process"] is None else ProcessId(*map(int, raw["process"]))
    return Attempt(str(raw["name"]), float(raw["began"]), bool(raw["digest"]), process, str(raw["boot"]))
