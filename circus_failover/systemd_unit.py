"""Our systemd units, filled in: the shipped templates with this Python, one circus.ini and one user.

The templates say what matters (KillMode=process, OOMPolicy=continue); this module only puts paths into
them, in systemd's own quoting (systemd.syntax(7), systemd.service(5), systemd 252).
"""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

from circus_failover.failure import Failed

TEMPLATES = {False: "circus-failover.service", True: "circus-failover-user.service"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def template(*, user: bool) -> str:
    """Return a shipped template: the user's unit, or the system's."""
    return files("circus_failover").joinpath(TEMPLATES[user]).read_text(encoding="utf-8")


def filled(*, user: bool, python: Path, ini: Path, account: str) -> str:
    """Return a unit that runs circusd for one circus.ini.

    Args:
        user: for `systemctl --user` instead of the system's manager.
        python: the interpreter that has circus-failover.
        ini: an absolute path; circusd runs in its folder.
        account: the user that a system unit runs as.

    Raises:
        Failed: a path holds what no unit file can say (exit 3).
    """
    path = f"{python.parent}:{SYSTEM_PATH}"
    values = {
        "DESCRIPTION": specifier(f"AI agents of {_on_one_line(str(ini))}"),
        "EXEC_START": command([str(python), "-m", "circus.circusd", str(ini)]),
        "WORKING_DIRECTORY": _folder(ini.parent),
        "ENVIRONMENT": quoted(f"PATH={path}"),
        "USER": specifier(account),
    }
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template(user=user))


def command(words: list[str]) -> str:
    """Return an argv as the value of ExecStart=.

    A `$` would be replaced by a variable, in the program's own path too; the prefix `:` turns that off.
    A program whose own path holds quotes or the like is refused, so env runs it.
    """
    if not words[0].isprintable() or set(words[0]) & set("\"'\\"):
        words = ["/usr/bin/env", *words]
    prefix = ":" if any("$" in word for word in words) else ""
    return prefix + " ".join(quoted(word) for word in words)


def quoted(word: str) -> str:
    """Return a word as one item of a setting that takes several, whatever it contains."""
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    text = "".join(_escaped(char) for char in word)
    return f'"{specifier(text)}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def specifier(text: str) -> str:
    """Return text in which systemd finds no %-specifier."""
    return text.replace("%", "%%")


def _folder(path: Path) -> str:
    """WorkingDirectory= knows neither quotes nor escapes, only specifiers."""
    text = str(path)
    if not text.isprintable() or text != text.strip() or text.endswith("\\"):
        raise Failed(
            f"the folder {_on_one_line(text)!r} cannot be written into a systemd unit (control characters, "
            "or blanks or a backslash at its end): move circus.ini into another one"
        )
    return specifier(text)


def _on_one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text).rstrip("\\")
