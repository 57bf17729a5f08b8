"""An account's `env_file`: variables that only its agents get, such as tokens, addresses and proxies.

Reads one file and says everything that is wrong with it. What it says may be shown anywhere, so it never
holds a value, nor any other text of the file: a line is known by its number. It runs inside circusd's loop,
so it never waits.

Why no library: python-dotenv expands `$NAME`, skips a line that it cannot read, and opens whatever is there.
Here a line is taken when shells, systemd and dotenv readers agree on what it means, and is a mistake else.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

MAX_BYTES = 64 * 1024
"""A page of variables; one argument or variable may have 128 KiB (execve(2), Linux)."""

_BLANK = re.compile(r"[ \t]*(?:#.*)?")
_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=
        (?:'(?P<single>[^']*)'|"(?P<double>[^"$`\\]*)"|(?P<plain>[^ \t'"$`\\;&|<>()~*?{}\[\]]*))
        (?:[ \t]+\#.*)?[ \t]*""",
    re.VERBOSE,
)
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*=")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a file, in words that hold nothing of its content."""

    found: str
    expected: str
    remedy: str
    line: int = 0
    """0: the file as a whole."""


class EnvFileError(ValueError):
    """A file that cannot be used. `mistakes` holds every mistake, never only the first."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        self.mistakes = tuple(mistakes)
        super().__init__(
            "; ".join(
                f"{path}{f':{one.line}' if one.line else ''}: found {one.found}, "
                f"expected {one.expected}: {one.remedy}"
                for one in self.mistakes
            )
        )


def read(path: Path, owned: Sequence[str] = (), uid: int | None = None) -> Mapping[str, str]:
    """Return the variables of a file.

    Args:
        path: the file.
        owned: names, or prefixes ending in `*`, that the supervisor sets and no file may.
        uid: whose file it must be; None: of this process's user.

    Raises:
        EnvFileError: it is not a regular file of that user and for that user alone, or not every line of it
            can be used.
    """
    try:
        # Without O_NONBLOCK opening a fifo waits for its writer, and circusd with it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            mistakes = _of_the_file(path, os.fstat(descriptor), os.geteuid() if uid is None else uid)
            content = b"" if mistakes else os.read(descriptor, MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        found = error.strerror or type(error).__name__
        mistake = Mistake(found, "a file that can be read", "create it, or leave env_file out")
        raise EnvFileError(path, [mistake]) from None
    if mistakes:
        raise EnvFileError(path, mistakes)
    return _variables(path, content, owned)


def _of_the_file(path: Path, found: os.stat_result, uid: int) -> list[Mistake]:
    if not stat.S_ISREG(found.st_mode):
        return [Mistake("something other than a file", "a regular file", "put one in its place")]
    mistakes = []
    if found.st_uid != uid:
        owner = f"a file of uid {found.st_uid}"
        mistakes.append(Mistake(owner, f"a file of uid {uid}, whose agents get it", f"chown {uid} {path}"))
    if found.st_mode & 0o077:
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
        mistakes.append(Mistake(mode, "mode 0600, since it holds secrets", f"chmod 600 {path}"))
    if found.st_size > MAX_BYTES:
        size = f"{found.st_size} bytes"
        mistakes.append(Mistake(size, f"at most {MAX_BYTES}", "leave variables only"))
    return mistakes


def _variables(path: Path, content: bytes, owned: Sequence[str]) -> Mapping[str, str]:
    """Return what the lines say.

    Raises:
        EnvFileError: some say nothing that can be used.
    """
    variables: dict[str, str] = {}
    lines: dict[str, int] = {}
    mistakes = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        line, mistake = _decoded(raw)
        if mistake is None and _BLANK.fullmatch(line):
            continue
        match = None if mistake else _LINE.fullmatch(line)
        if match is None:
            expected, remedy = mistake or _not_read(line)
            mistakes.append(Mistake("a line that cannot be used", expected, remedy, number))
            continue
        name = match["name"]
        taken = next((pattern for pattern in owned if fnmatchcase(name, pattern)), None)
        if taken is not None:
            found = f"a variable that the supervisor sets ({taken})"
            mistakes.append(Mistake(found, "none of these", "take the line out", number))
        elif lines.setdefault(name, number) != number:
            found = f"the name of line {lines[name]} again"
            mistakes.append(Mistake(found, "each name once", "take one of the two out", number))
        variables[name] = next(text for text in match.group("single", "double", "plain") if text is not None)
    if mistakes:
        raise EnvFileError(path, mistakes)
    return variables


def _decoded(raw: bytes) -> tuple[str, tuple[str, str] | None]:
    try:
        line = raw.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return "", ("text in UTF-8", "save it as UTF-8")
    if _CONTROL.search(line):
        return "", ("text without control characters", "take them out")
    return line, None


def _not_read(line: str) -> tuple[str, str]:
    """Return what was expected of a line, and what to do, without a word of it."""
    named = _NAME.match(line)
    if named is None:
        remedy = "no blank before the `=`; a name has letters, digits and `_`, the first no digit"
        return "NAME=value, `export NAME=value` or a comment", remedy
    value = line[named.end() :]
    if value[:1] in ("'", '"'):
        if value.count(value[0]) < 2:
            return "a value whose quote is closed on its line", "close it"
        if value[0] == '"':
            expected = "a value in double quotes without `$`, backquote and backslash, and nothing behind it"
            return expected, "put it into single quotes: nothing is expanded here"
        return "nothing behind the value", "a value with a single quote in it goes into double quotes"
    return (
        "a value in quotes, where it has blanks or characters that mean something to a shell",
        "put it into single quotes",
    )
