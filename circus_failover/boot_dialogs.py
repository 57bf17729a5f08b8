"""Whether a dialog that a client opened at its start is answered now, decided from one look after the other.

Pure: `boot_work` looks at the screen and presses the keys. A default answer often means "exit", so a key is
pressed only for a dialog that is known and configured, on a screen that was seen twice, and once for each
appearance of the dialog: a second one that a slow client has yet to read would answer the next dialog.

A client draws a dialog a moment before it listens, and what is pressed till then is lost (Claude Code
2.1.329). So keys are pressed once more where they were read and have had no effect for some seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circus_failover.agents.runtime import Dialog

ANSWERS_MAX = 3
"""How often the same dialog is answered in one boot; when it comes back once more, the boot has failed."""
MOVES_MAX = 12
"""How often the cursor of one menu is moved."""
SETTLED_SECS = 0.5
"""How long a menu's cursor must have stood where it is before the answer is confirmed: Claude Code 2.1.329
may draw a menu anew with the cursor back at "No, exit", just after it took a key."""
LOST_SECS = 3.0
"""Keys that were read, and have changed nothing on the screen for so long, are lost."""


@dataclass(frozen=True)
class Look:
    """What one look at a booting client has shown."""

    at: float
    """When it was, in monotonic seconds."""
    rows: tuple[str, ...] | None
    """The screen; None: it was not asked for, or could not be told."""
    dialog: str | None = None
    """The dialog that is open; None: none that has a name."""
    chosen: str | None = None
    """Which answer the cursor of a menu is at."""
    unread: int | None = None
    """How many bytes of what was pressed the client has yet to read; None: that cannot be told."""


@dataclass(frozen=True)
class Press:
    """Keys are to be pressed now."""

    dialog: str
    answer: str
    keys: tuple[str, ...]
    final: bool
    """Whether they give the answer; else they only move the cursor to it."""


@dataclass(frozen=True)
class Hopeless:
    """The boot has failed; the text says why and what to do."""

    reason: str


@dataclass
class Dialogs:
    """The dialogs of one boot, and what was done about them."""

    known: Mapping[str, Dialog]
    answers: Mapping[str, str]
    """The configured answers (`failover.dialogs`): a word by the dialog's name."""
    program: str
    counts: dict[str, int] = field(default_factory=dict)
    """How often each was answered."""
    moves: int = 0
    """How often the cursor was moved since the last answer."""
    pressed: tuple[str, tuple[str, ...] | None] | None = None
    """The dialog that keys were pressed for, and the screen of that moment, until they had an effect."""
    pressed_at: float | None = None
    """When that was, in monotonic seconds; None: an earlier worker did it."""
    _before: Look | None = None
    _since: float = 0.0
    """Since when the dialog is open with its cursor where it is, in monotonic seconds."""

    @property
    def given(self) -> str:
        """The answers that were given, as the setting spells them."""
        return " ".join(f"{name}={self.answers[name]}" for name in self.counts if name in self.answers)

    def look(self, now: Look) -> Press | Hopeless | None:
        """Take in one look, and return what follows; None: nothing yet."""
        before, self._before = self._before, now
        if now.dialog is None or now.dialog not in self.known:
            # Nothing is open: that is seen on a screen, and not by a look that could not be had.
            if now.rows is not None:
                self.pressed = None
            return None
        twice = before is not None and (before.dialog, before.chosen) == (now.dialog, now.chosen)
        if not twice:
            self._since = now.at
        if self.pressed is not None and self.pressed[0] == now.dialog:
            if self.pressed_at is None:
                self.pressed_at = now.at
            still = twice and before is not None and before.rows == now.rows
            if now.rows is None or not still or (now.rows == self.pressed[1] and not self._lost(now)):
                return None
        if not twice:
            return None
        self.pressed = None
        follows = self._answer(self.known[now.dialog], now.chosen)
        if isinstance(follows, Press) and follows.final and now.at - self._since < SETTLED_SECS:
            return None
        return follows

    def _lost(self, now: Look) -> bool:
        """Say whether the keys that were pressed have been read, and to no effect."""
        since = now.at - self.pressed_at if self.pressed_at is not None else 0.0
        return now.unread == 0 and since >= LOST_SECS

    def press(self, press: Press, look: Look) -> None:
        """Remember that keys are about to be pressed, after this look."""
        self.pressed, self.pressed_at = (press.dialog, look.rows), look.at
        self._before = None
        if press.final:
            self.moves = 0
            self.counts[press.dialog] = self.counts.get(press.dialog, 0) + 1
        else:
            self.moves += 1

    def _answer(self, dialog: Dialog, chosen: str | None) -> Press | Hopeless:
        answer = self.answers.get(dialog.name)
        keys = dialog.answers.get(answer, ()) if answer is not None else ()
        if answer is None or not keys:
            return Hopeless(unanswered(dialog, self.program))
        if self.counts.get(dialog.name, 0) >= ANSWERS_MAX:
            return Hopeless(
                f"{self.program} asks {dialog.asks} (dialog {dialog.name}) again and again: "
                f"{dialog.name}={answer} was answered {ANSWERS_MAX} times{_or(dialog)}"
            )
        if chosen is None or (len(keys) == 1 and keys[0] != "Enter"):
            return Press(dialog.name, answer, keys, True)
        if chosen == answer:
            return Press(dialog.name, answer, keys[-1:], True)
        if len(keys) == 1 or self.moves >= MOVES_MAX:
            return Hopeless(
                f"{self.program} asks {dialog.asks} (dialog {dialog.name}), "
                f"and its menu does not get to {answer}, but is at {chosen}{_or(dialog)}"
            )
        return Press(dialog.name, answer, keys[:-1], False)

    # -- what survives a worker --------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return what another worker has to know."""
        return {"counts": self.counts, "moves": self.moves, "pressed": self.pressed}

    def from_json(self, raw: Mapping[str, Any]) -> None:
        """Go on where an earlier worker was."""
        self.counts = {str(name): int(count) for name, count in raw["counts"].items()}
        self.moves = int(raw["moves"])
        if raw["pressed"] is not None:
            name, rows = raw["pressed"]
            self.pressed = (str(name), None if rows is None else tuple(str(row) for row in rows))


def unanswered(dialog: Dialog, program: str) -> str:
    """Return why a boot failed at a dialog that no setting answers, and what to do."""
    asks = f"{program} asks {dialog.asks} (dialog {dialog.name})"
    ways = [f"{dialog.name}={answer}" for answer, keys in dialog.answers.items() if keys]
    if not ways:
        return f"{asks}: a person has to answer it" + (f": {dialog.otherwise}" if dialog.otherwise else "")
    return f"{asks}: set failover.dialogs = {' or '.join(ways)}{_or(dialog)}"


def _or(dialog: Dialog) -> str:
    return f", or {dialog.otherwise}" if dialog.otherwise else ""


def telling(rows: Sequence[str], lines: int = 8, limit: int = 500) -> str:
    """Return the last lines of a screen that say something, on one line: without frames and empty space.

    Args:
        rows: the screen.
        lines: how many of its lines at most.
        limit: how many characters at most.
    """
    said = [" ".join(row.strip("│┃║|╭╮╰╯─━═ \u00a0").split()) for row in rows]
    kept = [row for row in said if any(ch.isalnum() for ch in row)][-lines:]
    return " / ".join(kept)[:limit]
