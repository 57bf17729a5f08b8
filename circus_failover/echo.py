"""What a screen says of a text that was typed: whether it is shown, and whether it still waits to be sent.

Pure: screens come in as `tmux.Look`, answers go out. A text is known by its mark, the last characters of its
last line, since programs fold long input, indent it, frame it, or show a placeholder in its place. Only what
can be seen counts: blanks, line ends, frames, and what combines with a letter are left out on both sides.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from circus_failover.tmux import Look

MARK_LENGTH = 40
PLACEHOLDER = re.compile(r"\[Pasted[^\[\]]{1,60}\]")
"""Without blanks: `[Pasted text #1 +20 lines]` (Claude Code 2.1), `[Pasted Content 1024 chars]` (Codex)."""
FRAME = "│┃║▌▐"


class _Visible(dict[int, str]):
    """What of a character is compared; filled as characters are met, since a screen is looked at often."""

    def __missing__(self, code: int) -> str:
        # Letters (L), digits (N), punctuation (P) and symbols (S); not marks, separators and controls.
        kept = "" if chr(code) in FRAME or unicodedata.category(chr(code))[0] not in "LNPS" else chr(code)
        self[code] = kept
        return kept


_VISIBLE = _Visible()


def visible(text: str) -> str:
    """Return what of a text can be recognised on a screen."""
    # Decomposed, so that a letter with an accent is the same however it was written.
    return (text if text.isascii() else unicodedata.normalize("NFD", text)).translate(_VISIBLE)


def mark_of(text: str) -> str:
    """Return the last characters of a text's last line; empty when nothing of it can be recognised."""
    for line in reversed(text.split("\n")):
        # What is left out may be many times the rest (an accent or more a letter), but not without end.
        if mark := visible(line[-MARK_LENGTH * 25 :])[-MARK_LENGTH:]:
            return mark
    return ""


def words(look: Look) -> str:
    """Return what a screen says without figures and signs: a clock or a spinner does not change it."""
    return "\n".join(map(_letters, look.rows))


@dataclass(frozen=True)
class Waiting:
    """How a text stands on a screen before it is sent, so that it can be told whether it still does."""

    mark: str
    later: int
    """How often the mark stands behind this place too; a short one may be part of any status line."""
    rows: int
    """How many rows below the end of the mark the cursor is."""
    digest: str
    """Of what stands before the mark on its row, or behind the mark when the cursor is on another row."""

    def still(self, look: Look) -> bool:
        """Say whether the text stands there as it did; a screen that moves elsewhere makes no difference."""
        return _placed(look, self.mark, self.later) == self


def shown(mark: str, before: Look, after: Look) -> Waiting | None:
    """Return where a text with this mark stands that was pasted between two looks; None when it is not there.

    It counts only when it was not there before as often: agents are told the same thing again and again.
    """
    # What has left the rows that are looked at, because the screen moved up, must not be missed by the count.
    old_rows = list(map(visible, before.rows[max(after.first - before.first, 0) :]))
    new_rows = list(map(visible, after.rows))
    old, new = "".join(old_rows), "".join(new_rows)
    # A screen that is redrawn may have pushed out an older one; but the cursor stands right behind this one.
    if not mark or not (
        new.count(mark) > old.count(mark) or (_at_cursor(after, mark) and not _at_cursor(before, mark))
    ):
        placeholders = PLACEHOLDER.findall(new)
        if len(placeholders) <= len(PLACEHOLDER.findall(old)):
            return None
        mark = placeholders[-1]
    return _placed(after, mark, new.count(mark, _newest(mark, old_rows, new_rows)))


def _newest(mark: str, old: list[str], new: list[str]) -> int:
    """Return where, in the joined rows, the lowest mark ends whose row was not there before."""
    text = "".join(new)
    ends = list(itertools.accumulate(map(len, new)))
    # A clock in a status line makes it no new row; unless nothing but figures was typed.
    for kind in (_letters, str):
        surplus = Counter(map(kind, new))
        surplus.subtract(map(kind, old))
        for row, end in reversed(list(zip(new, ends, strict=True))):
            found = text.rfind(mark, 0, end)
            if surplus[kind(row)] > 0 and found + len(mark) > end - len(row):
                return found + len(mark)
    return len(text)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))


def _placed(look: Look, mark: str, later: int) -> Waiting | None:
    rows = [visible(row) for row in look.rows]
    text = "".join(rows)
    found = len(text)
    for _ in range(later + 1):
        found = text.rfind(mark, 0, found)
        if found < 0:
            return None
    end = found + len(mark)
    ends = list(itertools.accumulate(map(len, rows)))
    row = next(index for index, total in enumerate(ends) if total >= end)
    below = look.cursor - (look.first + row)
    # A hint or a suggestion behind it may change by itself, and so may clocks, counts and spinners around the
    # input line; words do when something was sent.
    begins = ends[row] - len(rows[row])
    part = text[begins:end] if below == 0 else _letters(text[end:])
    return Waiting(mark, later, below, hashlib.sha256(part.encode("utf-8", "replace")).hexdigest())


def _at_cursor(look: Look, mark: str) -> bool:
    row = look.cursor - look.first
    return "".join(map(visible, look.rows[: row + 1])).endswith(mark) if 0 <= row < len(look.rows) else False
