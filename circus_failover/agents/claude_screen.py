"""What Claude Code's screen shows: its input box, a menu with its cursor, that it works, that it gave up.

Facts are of Claude Code 2.1.329. The screen is the last evidence, and holds what a conversation is about:
words count only where the client itself writes them. A menu is one only without the input box, with a cursor
and with its footer; the input box stands between two rules, and its sign is followed by a blank that does not
break. The menus at the start take no digits: Up, Down and Enter only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circus_failover.agents.runtime import Dialog

ELSEWHERE = "somewhere else"
"""Where a cursor is that is at none of a dialog's words: to be moved, never to be confirmed."""

_BY_HAND = "start `claude` once by hand with this account's home"
DIALOGS = (
    Dialog(
        "trust",
        "whether the working directory is trusted",
        {"accept": ("Down", "Enter")},
        f"{_BY_HAND} in that directory and answer it",
    ),
    Dialog(
        "api-key",
        "whether the API key in its environment may be used",
        {"accept": ("Up", "Enter"), "reject": ("Down", "Enter")},
        f"{_BY_HAND} and that key, and answer it",
    ),
    Dialog(
        "bypass",
        "whether it may work without asking for permissions",
        {"accept": ("Down", "Enter")},
        f"{_BY_HAND} and --dangerously-skip-permissions, and answer it",
    ),
    Dialog(
        "resume-summary",
        "whether a long conversation is resumed whole or from a summary",
        {"full": ("Down", "Enter"), "summary": ("Down", "Enter")},
        "attach to the agent and answer it",
    ),
    Dialog(
        "mcp-server",
        "whether the servers in the project's .mcp.json are used",
        {"accept": ("Up", "Enter"), "reject": ("Down", "Enter")},
        "set enableAllProjectMcpServers or enabledMcpjsonServers in settings.json",
    ),
    Dialog(
        "external-includes",
        "whether the project's CLAUDE.md may bring in files from outside of it",
        {"accept": ("Down", "Enter"), "reject": ("Up", "Enter")},
        f"{_BY_HAND} in that directory and answer it",
    ),
    Dialog("login", "for a login", {}, f"{_BY_HAND} and log in with /login"),
    Dialog("onboarding", "what it asks at its first start", {}, f"{_BY_HAND} and answer all it asks"),
    Dialog("update", "whether it is updated", {}, "run `claude update`, and start the agent again"),
    Dialog("settings", "what to do about settings that it cannot read", {}, "correct the file that it names"),
)
"""What it may ask at its start. Known from the program's words only: resume-summary, onboarding and update;
login was seen after /login."""


@dataclass(frozen=True)
class _Menu:
    """How a dialog is recognised."""

    name: str
    words: re.Pattern[str]
    """What the text above its menu and the menu itself say, with single blanks."""
    options: Mapping[str, str]
    """By what an option begins with: the word for it."""


def _menu(name: str, words: str, **options: str) -> _Menu:
    return _Menu(name, re.compile(words, re.IGNORECASE), {start: word for word, start in options.items()})


_MENUS = (
    _menu("bypass", r"Bypass Permissions mode.*you accept all responsibility", accept="Yes", decline="No"),
    _menu("trust", r"Quick safety check|Do you trust the files", accept="Yes", decline="No"),
    _menu("api-key", r"Detected a custom API key in your environment", accept="Yes", reject="No"),
    _menu("resume-summary", r"\bResume from summary\b", full="Resume", summary="Resume from summary"),
    _menu(
        "mcp-server",
        r"new MCP servers? found in this project",
        accept="Use this MCP server",
        always="Use this and all",
        reject="Continue without",
    ),
    _menu("external-includes", r"Allow external CLAUDE\.md file imports", accept="Yes", reject="No"),
    _menu("login", r"Select login method|Login expired"),
    _menu("onboarding", r"Choose the text style that looks best|Let's get started\.|^ ?Security notes"),
    _menu("settings", r"Settings Error|Configuration error.*(?:isn't valid JSON|corrupted|cannot be read)"),
    _menu("usage-limit", r"What do you want to do\?.*Stop and wait for limit to reset"),
    _menu("background-work", r"Background work is running"),
    _menu("update", r"Update (?:now|available)|needs an update"),
)
"""The first that fits counts. Not at a start: `usage-limit`, and `background-work` after /exit."""

_FAILED = tuple(
    re.compile(words)
    for words in (
        r"No conversation found with session ID",
        r"Error: Session ID \S+ is already in use",
        r"Error: Invalid session ID",
        r"--dangerously-skip-permissions cannot be used with root/sudo",
        r"Unable to connect to Anthropic services",
        r"It looks like your version of Claude Code \(.*\) needs an update",
        r"Claude Code might not be available in your country",
        r"error: unknown option",
    )
)
_TOOLS = {
    "Bash command": "Bash",
    "Create file": "Write",
    "Overwrite file": "Write",
    "Edit file": "Edit",
    "Fetch": "WebFetch",
}
"""What a permission is asked for, by the row above the question."""
_RULE = re.compile(r"^\s*[─━▔╌]{10,}")
_BOX = re.compile(r"^\s*❯(?:\u00a0|$)")
_CURSOR = re.compile(r"^\s*❯ (?:\d+\. )?(\S.*)$")
_FOOTER = re.compile(
    r"\b(?:Enter to (?:confirm|continue|select|save|submit)|Esc to (?:cancel|exit|go|reject))\b"
)
_SPINNER = re.compile(r"^\s*[^\w\s❯●⎿│|>#\"'`(\[{-]\s\S")
_BUSY = re.compile(r"\besc to interrupt\b", re.IGNORECASE)
_WAITS = re.compile(r"\bWaiting for \d+ .*\bto finish\b")


@dataclass(frozen=True)
class Shown:
    """What a screen says."""

    box: bool = False
    """The input box is there: it takes a prompt."""
    working: bool = False
    menu: bool = False
    """A menu is open, which takes the keys."""
    dialog: str | None = None
    """Which dialog that is; None: none that is known."""
    chosen: str | None = None
    """At which answer its cursor is."""
    tool: str = ""
    """The tool that a permission is asked for."""
    failed: str = ""
    """Why it will not start, in its own words."""
    text: str = ""
    """What is above the menu, on one line."""


def read(rows: Sequence[str]) -> Shown:
    """Return what a screen says; nothing where it is not understood."""
    box = _box(rows)
    if box is not None:
        return Shown(box=True, working=_working(rows, box))
    cursor = _cursor(rows)
    if cursor is not None:
        return _opened(rows, cursor)
    working = any(_SPINNER.match(row) and _BUSY.search(row) for row in rows)
    return Shown(failed=_failure(rows), working=working)


def _box(rows: Sequence[str]) -> int | None:
    """Return the row of the input box: it follows a rule, and another one follows it."""
    for number in range(len(rows) - 1, 0, -1):
        if _BOX.match(rows[number]) and _RULE.match(rows[number - 1]):
            return number if any(_RULE.match(row) for row in rows[number + 1 :]) else None
    return None


def _working(rows: Sequence[str], box: int) -> bool:
    """Say whether a turn is on: in the line of the mode below the box, or that of the spinner above it."""
    end = next((number for number in range(box + 1, len(rows)) if _RULE.match(rows[number])), len(rows))
    if any(_BUSY.search(row) for row in rows[end:]):
        return True
    return any(
        _SPINNER.match(row) and (_BUSY.search(row) or _WAITS.search(row))
        for row in rows[max(0, box - 12) : box]
    )


def _cursor(rows: Sequence[str]) -> int | None:
    """Return the row of a menu's cursor: the last one, with a footer below."""
    for number in range(len(rows) - 1, -1, -1):
        if _CURSOR.match(rows[number]):
            return number if any(_FOOTER.search(row) for row in rows[number + 1 :]) else None
    return None


def _opened(rows: Sequence[str], cursor: int) -> Shown:
    top = cursor
    while top > 0 and not re.match(r"^\s*[─━▔]{10,}", rows[top - 1]):
        top -= 1
    said = [" ".join(row.split()) for row in rows[top:]]
    whole = _joined(said)
    above = _joined(said[: cursor - top])[:200]
    option = _CURSOR.match(rows[cursor])
    assert option is not None
    menu = next((each for each in _MENUS if each.words.search(whole)), None)
    if menu is None:
        tool = next((name for row in said for words, name in _TOOLS.items() if row.startswith(words)), "")
        return Shown(menu=True, tool=tool, text=above)
    return Shown(menu=True, dialog=menu.name, chosen=_chosen(menu, option[1]), text=above)


def _joined(said: Sequence[str]) -> str:
    return " ".join(row for row in said if row and not _RULE.match(row))


def _chosen(menu: _Menu, option: str) -> str | None:
    if not menu.options:
        return None
    # The longest beginning first: `Resume` begins `Resume from summary` too.
    for start in sorted(menu.options, key=len, reverse=True):
        if option.startswith(start):
            return menu.options[start]
    return ELSEWHERE


def _failure(rows: Sequence[str]) -> str:
    for row in rows:
        said = " ".join(row.split())
        if any(words.match(said) for words in _FAILED):
            return said[:200]
    return ""
