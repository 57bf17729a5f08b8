"""The last lines of a pane log, as text: what an agent printed, without what it told the terminal.

A log is whatever a program printed: binary, endless or made to confuse. Reading it takes one bounded look.
"""

from __future__ import annotations

import os
import re
import stat

LINES = 40
BYTES = 8 * 1024
LOOKS_BYTES = (16 * 1024, 64 * 1024)
"""How much is looked at, and how much when that holds too few lines: much of what a program prints that draws
its screen are control sequences."""

# ECMA-48: CSI, OSC, the other strings, other escapes. A string stops at the end of a line or the next escape,
# so that one that is never ended hides no more than that, and nothing is looked at twice.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*([@-~])?"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\n]*(?:\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_TO_ANOTHER_LINE = frozenset("ABEFHJdf")
_ALONG_THE_LINE = frozenset("CDG`a")


def tail(path: str) -> tuple[int, list[str]]:
    """Return the size of a pane log in bytes, and its last lines: at most LINES, and BYTES of UTF-8.

    Blank lines are left out. When the log was turned a moment ago, the older one's end is taken too.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    size, lines = 0, list[str]()
    for look in LOOKS_BYTES:
        size, raw, whole = _end(path, look)
        if size < look:
            try:
                _, older, whole = _end(f"{path}.1", look - size)
                raw = older + raw
            except OSError:
                whole = True
        lines = _lines(raw, whole)
        if len(lines) == LINES or whole:
            break
    return size, last(lines, BYTES)


def last(lines: list[str], room: int) -> list[str]:
    """Return the last lines that fit into `room` bytes of UTF-8; a last one that does not is cut in front."""
    kept: list[str] = []
    for line in reversed(lines):
        raw = line.encode("utf-8", "replace")
        if len(raw) + 1 > room:
            cut = raw[len(raw) - max(0, room - 1) :].decode("utf-8", "ignore")
            if cut and not kept:
                kept.append(cut)
            break
        kept.append(line)
        room -= len(raw) + 1
    return kept[::-1]


def size(lines: list[str]) -> int:
    """Return how many bytes of UTF-8 these lines are."""
    return sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)


def _end(path: str, limit: int) -> tuple[int, bytes, bool]:
    """Return a file's size, its last bytes, and whether these are all of it."""
    # Whoever can write into the folder can put anything in the log's place: a link elsewhere, or a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is no file")
        begin = max(0, found.st_size - limit)
        return found.st_size, os.pread(handle, limit, begin), begin == 0
    finally:
        os.close(handle)


def _lines(raw: bytes, whole: bool) -> list[str]:
    """Return the last LINES that show something; without `whole` the first is half a line, and left out."""
    if not whole:
        raw = raw.partition(b"\n")[2] or raw
    text = _SEQUENCE.sub(_shown, raw.decode("utf-8", "replace").replace("\r\n", "\n"))
    found: list[str] = []
    for line in reversed(text.split("\n")):
        shown = _printable(line)
        if shown:
            found.append(shown)
        if len(found) == LINES:
            break
    return found[::-1]


def _shown(sequence: re.Match[str]) -> str:
    """Return what stands for a sequence: programs that draw go to another line or column by one."""
    final = sequence[1]
    return "\n" if final in _TO_ANOTHER_LINE else " " if final in _ALONG_THE_LINE else ""


def _printable(line: str) -> str:
    """Return what a line shows: what was printed over the beginning of a line (`\\r`) replaces it."""
    line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    if not line.isprintable():
        line = "".join(ch if ch.isprintable() else " " if ch.isspace() else "" for ch in line)
    return line.rstrip()
