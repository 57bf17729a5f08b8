"""The journal of one init, and carrying it out, on after an interruption, and back.

The journal holds every step before the first is taken, and is told of each before it is taken; so whatever
is killed at whatever moment, the next run knows what has happened, but for one step, of which the disk tells.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from circus_failover import crashpoint, private_file
from circus_failover.failure import Failed
from circus_failover.init import steps
from circus_failover.init.steps import Blocked, Kind, Step
from circus_failover.problems import printable

VERSION = 1
_NAME = re.compile(r"\.failover-init-([0-9]+)\.journal")


@dataclass(frozen=True)
class Header:
    """What a journal is about."""

    steps: tuple[Step, ...]
    homes: tuple[tuple[str, str], ...]
    """The homes that existed and are changed, as (runtime, path): none may have a client running."""
    state_dir: str
    made: tuple[str, ...]
    """The folders that were made for the journal itself, the outermost first."""
    at: float
    """Epoch seconds."""


class Journal:
    """One journal: its header, and how far it is."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self.undoing = False
        self.done = False
        self.at = -1
        """The step that was begun last, or whose undoing was; those before it have happened for certain."""

    @property
    def whole(self) -> bool:
        """Whether the init has been carried out to its end, and no undo has begun."""
        return self.done and not self.undoing

    def note(self, **said: object) -> None:
        """Put one line at the end, durably."""
        line = json.dumps(said) + "\n"
        # A line that a power cut tore is ended first, so that it cannot swallow this one.
        with open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def follow(self, line: dict[str, object]) -> None:
        """Take in one line."""
        if line.get("done"):
            self.done = True
        for word in ("begun", "undoing"):
            if isinstance(number := line.get(word), int):
                self.at, self.undoing = number, word == "undoing"


def journals(folder: Path) -> list[Path]:
    """Return the journals in a folder, the oldest first."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = {int(match[1]): name for name in names if (match := _NAME.fullmatch(name))}
    return [folder / found[number] for number in sorted(found)]


def begin(folder: Path, header: Header) -> Journal:
    """Write a new journal; nothing else is changed."""
    last = journals(folder)
    number = int(_NAME.fullmatch(last[-1].name)[1]) + 1 if last else 1  # type: ignore[index]
    path = folder / f".failover-init-{number}.journal"
    document = {"version": VERSION, **asdict(header)}
    private_file.replace(path, json.dumps(document) + "\n")
    steps.sync_folder(str(folder))
    crashpoint.reached("init-planned")
    return Journal(path, header)


def read(path: Path) -> Journal:
    """Read a journal.

    Raises:
        Failed: it cannot be understood.
    """
    try:
        first, *rest = path.read_text(encoding="utf-8").split("\n")
        document = json.loads(first)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}, expected {VERSION}")
        header = Header(
            tuple(Step(**{**step, "kind": Kind(step["kind"])}) for step in document["steps"]),
            tuple((runtime, home) for runtime, home in document["homes"]),
            document["state_dir"],
            tuple(document["made"]),
            float(document["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"{printable(str(path))}: expected the journal of an init ({error})") from error
    journal = Journal(path, header)
    for line in rest:
        try:
            journal.follow(json.loads(line))
        except (ValueError, AttributeError):
            continue  # torn by a power cut: what it was to say had not begun
    return journal


def _nothing() -> None:
    """Be the place at which nothing happens."""


def go(journal: Journal, place: Callable[[], None] = _nothing) -> None:
    """Carry out the steps that have not been, and say in the journal that all have.

    Args:
        journal: the journal; whoever calls holds its folder's lock.
        place: called before and after each step, where a test ends the process.

    Raises:
        Failed: a step could not be taken; the journal stays, for another run or an undo.
    """
    for number, step in enumerate(journal.header.steps):
        if number < journal.at:
            continue
        if number > journal.at:
            journal.note(begun=number)
            journal.at = number
        place()
        _taken(partial(steps.do, step), journal, step)
        place()
    crashpoint.reached("init-moved")
    journal.note(done=True)
    journal.done = True


def undo(journal: Journal, place: Callable[[], None] = _nothing) -> list[str]:
    """Take back every step, the last first, and remove the journal.

    Args:
        journal: the journal; whoever calls holds its folder's lock.
        place: called before and after each step, where a test ends the process.

    Returns:
        What was left where it is, a sentence each.

    Raises:
        Failed: a step could not be taken back; the journal stays, for another run.
    """
    left = []
    newest = journal.at
    for number in range(newest, -1, -1):
        step = journal.header.steps[number]
        # The one that was begun last may not have been taken; of one whose undoing was, the same is true.
        certain = number < newest or (journal.done and not journal.undoing)
        if not (journal.undoing and number == journal.at):
            journal.note(undoing=number)
            journal.at, journal.undoing = number, True
        if number == newest:
            crashpoint.reached("init-undoing")
        place()
        remark = _taken(partial(steps.undo, step, certain), journal, step)
        left += [remark] if remark else []
        place()
    os.unlink(journal.path)
    for folder in reversed(journal.header.made):
        try:
            os.rmdir(folder)
        except OSError:
            break
    return left


def _taken(action: Callable[[], str | None], journal: Journal, step: Step) -> str | None:
    try:
        return action()
    except (Blocked, OSError) as error:
        if journal.undoing:
            raise Failed(f"not undone: {step} ({error}); then run init --undo again") from error
        raise Failed(f"could not {step} ({error}); then init goes on, or init --undo goes back") from error
