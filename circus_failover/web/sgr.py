"""Rows of a terminal as text with colours and nothing else: what any program printed is hostile.

Pure. A row that leaves here holds printable characters and SGR sequences (ECMA-48, `CSI ... m`) written here;
every other control character and escape sequence is gone, whoever let it through.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

_TOKEN = re.compile(
    r"\x1b\[(?P<sgr>[0-9;:]{0,120})m"
    r"|(?P<shift>[\x0e\x0f])"
    r"|(?P<tab>\t)"
    # Strings (OSC, DCS, SOS, PM, APC) go with what they say, to the end of the row where they have none.
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-Z\\^-~]?"
    r"|[\x00-\x1f\x7f-\x9f]"
)
_ANY_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_GRAPHICS = str.maketrans(
    "`abcdefghijklmnopqrstuvwxyz{|}~",
    "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·",
)
"""DEC special graphics: what programs draw lines with. tmux puts SO and SI around them (tmux 3.3a)."""
_OFF = {22: ("1", "2"), 23: ("3",), 25: ("5",), 27: ("7",), 28: ("8",), 29: ("9",), 55: ("53",)}
_UNDERLINES = ("4", "4:2", "4:3", "4:4", "4:5")
_SHOWS_ON_SPACES = frozenset((*_UNDERLINES, "7", "9", "53"))
_COLOURS = {38: "fg", 48: "bg", 58: "under"}
_DEFAULTS = {39: "fg", 49: "bg", 59: "under"}


class Style(NamedTuple):
    """How characters look: attributes and colours, as SGR spells them; empty is the terminal's own."""

    attributes: tuple[str, ...] = ()
    fg: str = ""
    bg: str = ""
    under: str = ""
    """The colour of the underline."""

    @property
    def seen_on_spaces(self) -> bool:
        """Whether a space in this style differs from none."""
        return bool(self.bg) or not _SHOWS_ON_SPACES.isdisjoint(self.attributes)


PLAIN = Style()


def rows(lines: Iterable[str]) -> list[str]:
    """Return rows of which each stands by itself: it says all of its colours, and ends without any.

    Args:
        lines: rows as `capture-pane -e` gives them, where each goes on with the colours of the one before.
    """
    style, graphics, made = PLAIN, False, []
    for line in lines:
        if style is PLAIN and not graphics and not _ANY_CONTROL.search(line):
            made.append(line.rstrip(" "))
            continue
        row, style, graphics = _row(line, style, graphics)
        made.append(row)
    return made


def plain(text: str) -> str:
    """Return a text without any control character or escape sequence."""
    return _TOKEN.sub("", text)


def _row(line: str, style: Style, graphics: bool) -> tuple[str, Style, bool]:
    runs: list[tuple[Style, str]] = []

    def add(text: str) -> None:
        text = text.translate(_GRAPHICS) if graphics else text
        if runs and runs[-1][0] == style:
            text = runs.pop()[1] + text
        runs.append((style, text))

    at = 0
    for found in _TOKEN.finditer(line):
        if found.start() > at:
            add(line[at : found.start()])
        at = found.end()
        if found["sgr"] is not None:
            style = styled(style, found["sgr"])
        elif found["shift"]:
            graphics = found["shift"] == "\x0e"
        elif found["tab"]:
            add(" " * (8 - sum(len(text) for _, text in runs) % 8))
    if at < len(line):
        add(line[at:])
    while runs and not runs[-1][0].seen_on_spaces:
        last, text = runs.pop()
        if kept := text.rstrip(" "):
            runs.append((last, kept))
            break
    parts, now = [], PLAIN
    for one, text in runs:
        if one != now:
            parts.append(_sequence(one))
            now = one
        parts.append(text)
    if now != PLAIN:
        parts.append(_sequence(PLAIN))
    # `rows` knows by identity that nothing has to be carried on.
    return "".join(parts), PLAIN if style == PLAIN else style, graphics


@functools.lru_cache(maxsize=4096)
def _sequence(style: Style) -> str:
    """Return the sequence after which characters look so, whatever was before."""
    words = (*style.attributes, style.fg, style.bg, style.under)
    return f"\x1b[{';'.join(('0', *filter(None, words)))}m"


@functools.lru_cache(maxsize=4096)
def styled(style: Style, parameters: str) -> Style:
    """Return a style after an SGR sequence; what is unknown in it changes nothing.

    Args:
        style: the style before.
        parameters: what stands between `CSI` and `m`.
    """
    words = parameters.split(";")
    while words:
        word = words.pop(0)
        if ":" in word:
            style = _with_parts(style, word.split(":"))
            continue
        if len(word) > 3 or not word.isdecimal() and word:
            continue
        code = int(word or 0)
        if code in _COLOURS:
            size = {"5": 2, "2": 4}.get(words[0] if words else "", 0)
            style = _coloured(style, code, words[:size])
            words = words[size:]
        else:
            style = _changed(style, code)
    return style


def _changed(style: Style, code: int) -> Style:
    if code == 0:
        return PLAIN
    if code in (1, 2, 3, 5, 7, 8, 9, 53):
        return _with(style, str(code))
    if code in (4, 21, 24):
        return _underlined(style, {4: "4", 21: "4:2", 24: ""}[code])
    if code in _OFF:
        return style._replace(attributes=tuple(one for one in style.attributes if one not in _OFF[code]))
    if 30 <= code <= 37 or 90 <= code <= 97:
        return style._replace(fg=str(code))
    if 40 <= code <= 47 or 100 <= code <= 107:
        return style._replace(bg=str(code))
    return _painted(style, _DEFAULTS[code], "") if code in _DEFAULTS else style


def _with(style: Style, attribute: str) -> Style:
    if attribute in style.attributes:
        return style
    return style._replace(attributes=tuple(sorted((*style.attributes, attribute))))


def _underlined(style: Style, how: str) -> Style:
    kept = tuple(one for one in style.attributes if one not in _UNDERLINES)
    return style._replace(attributes=tuple(sorted((*kept, how))) if how else kept)


def _with_parts(style: Style, parts: list[str]) -> Style:
    if parts[0] == "4":
        how = {"0": "", "1": "4"}.get(parts[1], f"4:{parts[1]}")
        return _underlined(style, how) if not how or how in _UNDERLINES else style
    if parts == ["5", "3"]:
        # tmux 3.3a writes 53, overline, as it writes the kinds of underline.
        return _with(style, "53")
    if parts[0].isdecimal() and int(parts[0][:3]) in _COLOURS and len(parts) > 2:
        # 38:2:R:G:B, and with a colour space between: 38:2::R:G:B.
        kind = parts[1:2] + (parts[-3:] if parts[1] == "2" else parts[2:3])
        return _coloured(style, int(parts[0][:3]), kind)
    return style


def _coloured(style: Style, code: int, colour: list[str]) -> Style:
    """Return a style with an indexed (5;N) or a true (2;R;G;B) colour."""
    numbers = colour[1:]
    if len(numbers) != {"5": 1, "2": 3}.get(colour[0] if colour else "", 0):
        return style
    if not numbers or any(len(one) > 3 or not one.isdecimal() or int(one) > 255 for one in numbers):
        return style
    said = ";".join((str(code), colour[0], *(str(int(one)) for one in numbers)))
    return _painted(style, _COLOURS[code], said)


def _painted(style: Style, what: str, colour: str) -> Style:
    if what == "fg":
        return style._replace(fg=colour)
    return style._replace(bg=colour) if what == "bg" else style._replace(under=colour)
