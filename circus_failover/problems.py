"""Mistakes in a configuration file: one value each, said in one line, and raised all at once.

Light on purpose: every front end imports it, also where pydantic and YAML are not needed.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxlevel = 2


def describe(value: object) -> str:
    """A value from a configuration file as one short, printable piece of text, whatever it contains."""
    return "nothing" if value is None else _REPR.repr(value)


def printable(text: str) -> str:
    """`text` on one line, with what cannot be shown escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:4096])


def nearest(word: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """Ends a sentence about an unknown word: the nearest known one, or nothing when none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {prefix + found[0]!r}?" if found else ""


@dataclass(frozen=True)
class Problem:
    """One mistake in one file: where it is, what was found and what is expected instead.

    `key` is empty when the file as a whole is wrong; `value` None means that nothing was given.
    """

    file: str
    key: str
    value: object = field(hash=False)
    expected: str
    section: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "")
        section = f"[{self.section}]" if self.section else ""
        key = self.key if self.key.isprintable() and len(self.key) <= 120 else describe(self.key)
        thing = " ".join(part for part in (section, key) if part)
        found = "not set" if self.value is None else f"found {describe(self.value)}"
        if isinstance(self.value, str) and not key:  # of a whole file, the value is a sentence about it
            found = f"found {self.value}"
        return printable(f"{place}: {f'{thing}: ' if thing else ''}{found}, expected {self.expected}")


class SettingsError(ValueError):
    """Configuration that cannot be used. `problems` holds every mistake, never only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))
