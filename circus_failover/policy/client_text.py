"""Which lines of a screen or a message a client says itself: by its marks, and nothing of what they mean.

A screen holds what an operator typed, what the model answered, what tools printed and what the client says of
itself. Only the mark before a line tells them apart; a line without one is the client's when it begins at the
edge, since everything else is indented (Claude Code 2.1.329, Codex 0.169.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from circus_failover.words import Word

_LINES = 400
"""How many of the last lines are looked at: more than any screen has."""
_ROW_CHARS = 2000
_PASSAGE_LINES = 12
_PASSAGE_CHARS = 2000

_NOTICE = "⎿■⚠✗✘✖🖐"
_SPEECH = "●⏺•"
_SPINNER = "✢✳✶✻✽✺"
_FAINT = "·*+"
"""Marks of a spinner that may as well be a separator at the begin of a line that goes on."""
_ELSE = "❯›▌»>└├!"
"""Before what an operator typed, and before what a tool printed."""
_LINE = re.compile(
    r"(?P<frame> *[│┃║╎|] ?)?(?P<indent> *)"
    rf"(?:(?P<mark>[{_NOTICE}{_SPEECH}{_SPINNER}{_FAINT}{_ELSE}])\ufe0f?(?= |$))?"
    r" *(?P<text>.*?) *(?:[│┃║╎] *)?$"
)
_CURSORS = ("❯", "›")
_CHOICE = re.compile(r"\d\. ")
_RULE = re.compile(r"[ \u2500-\u259f]*$")
_TOOL = re.compile(r"[A-Za-z_][\w -]{0,60}\(|Ran |Searched |Read ")
_BULLET = "•"
"""Codex's mark of an answer, at the edge; elsewhere that of a list, or a separator."""
_GOES_ON = re.compile(
    r"(?:limit )?resets?\b|continu|please run|retrying|attempt|api error|fix |add funds|progress", re.I
)
_WORKS = re.compile(r"esc to interrupt|How is Claude doing", re.I)
"""After the mark of an answer, and none: it still works, or asks how it was."""

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"),
        **dict.fromkeys("\u2010\u2011\u2013\u2014\u2212", "-"),
    }
    | {
        **dict.fromkeys("\u2219\u2022\u2027\u22c5", "\u00b7"),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\ufeff", ""),
    }
)


class Speaker(Word):
    """Who can have said something."""

    CLIENT = "client"
    CLIENT_OR_MODEL = "client-or-model"


@dataclass(frozen=True)
class Passage:
    """A line that somebody begins to say something with, and those that go on with it."""

    speaker: Speaker
    at: int
    """Which line of the text it begins at."""
    lines: tuple[str, ...]
    works: bool = False
    """It says that the client is at work."""

    @cached_property
    def squeezed(self) -> str:
        """Its text without any space: breaks of lines within words do not matter there."""
        return "".join(self._parts)[:_PASSAGE_CHARS]

    @cached_property
    def line_ends(self) -> frozenset[int]:
        """Where its lines end in the squeezed text."""
        ends, at = [], 0
        for part in self._parts:
            at += len(part)
            ends.append(at)
        return frozenset(ends)

    @cached_property
    def _parts(self) -> tuple[str, ...]:
        return tuple(line.replace(" ", "") for line in self.lines)


@dataclass(frozen=True)
class _Line:
    mark: str
    edge: bool
    """It begins at the edge of the screen, or of its frame."""
    text: str


def plain(text: str) -> str:
    """Return a text with one kind of apostrophe, dash, separator and space, without colours; lines stay."""
    return _spaced(text).translate(_PLAIN)


def passages(text: str) -> Iterator[Passage]:
    """Give what the client may have said, from above to below.

    A line at the edge may begin something or go on with it: it does both.

    Args:
        text: one message, or the rows of a screen, joined by newlines.
    """
    rows = (row[:_ROW_CHARS] for row in text.split("\n")[-_LINES:])
    lines = [_line(row) for row in _spaced("\n".join(rows)).split("\n")]
    for at, line in enumerate(lines):
        speaker = _speaker(lines, at)
        if speaker is not None:
            end = at + 1
            while end < min(len(lines), at + _PASSAGE_LINES) and _goes_on(lines[end]):
                end += 1
            said = (line.text, *(f"{each.mark} {each.text}".strip() for each in lines[at + 1 : end]))
            yield Passage(
                speaker,
                at,
                tuple(each.translate(_PLAIN) for each in said),
                works=_WORKS.search(line.text) is not None,
            )


def _spaced(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")
    return re.sub(r"[^\S\n]", " ", text)


def _line(row: str) -> _Line:
    found = _LINE.match(row)
    if found is None or _RULE.match(row):
        return _Line("", False, "")
    return _Line(found["mark"] or "", not found["indent"], found["text"])


def _speaker(lines: Sequence[_Line], at: int) -> Speaker | None:
    line = lines[at]
    if not line.text:
        return None
    if line.mark and line.mark in _SPEECH:
        return Speaker.CLIENT_OR_MODEL if line.edge or line.mark != _BULLET else None
    if line.mark == "⎿" and _is_output(lines, at):
        return None
    if line.mark in _CURSORS and _CHOICE.match(line.text):
        return Speaker.CLIENT
    if line.mark and line.mark in _NOTICE + _SPINNER + _FAINT:
        return Speaker.CLIENT
    return Speaker.CLIENT if line.edge and not line.mark else None


def _is_output(lines: Sequence[_Line], at: int) -> bool:
    """Say whether a line shows what a tool or a command of the operator printed."""
    above = next((line for line in reversed(lines[max(0, at - _PASSAGE_LINES) : at]) if line.mark), None)
    if above is None:
        return False
    return above.mark == "!" or (above.mark in _SPEECH and _TOOL.match(above.text) is not None)


def _goes_on(line: _Line) -> bool:
    return bool(line.text) and (not line.mark or line.mark in _FAINT or _continues(line))


def _continues(line: _Line) -> bool:
    """Say whether the mark of an answer is a separator at which a line was broken."""
    return line.mark == _BULLET and _GOES_ON.match(line.text) is not None
