"""What Codex's screen says: whether it works, waits or takes a prompt, and which of its dialogs is open.

Pure: from the rows and the title of a terminal. The screen is the last evidence, so it has to be plain: a
dialog counts only with its menu, as the lowest thing on the screen, since what a model writes or a person has
typed may read like any of it (Codex 0.169.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from circus_failover.agents.runtime import Dialog, Screen
from circus_failover.policy import usage_limits
from circus_failover.policy.health import Fault
from circus_failover.words import FaultKind, State

OPEN_ELSEWHERE = "This conversation is open in another app"
OTHER = "other"
"""Where the cursor of a menu is, when it is at nothing that answers the dialog."""

FOOT_ROWS = 3
"""Among so many last rows is the line that says which keys a dialog takes."""
HEAD_ROWS = 16
"""So many rows above the cursor of a menu may its question begin."""

DIALOGS = (
    # What gives trust is not chosen by its digit, unlike other entries: it takes the cursor and Enter.
    Dialog(
        "trust",
        "whether the working directory is trusted",
        {"accept": ("Up", "Enter")},
        "set its trust_level in config.toml",
    ),
    Dialog(
        "restricted",
        "whether to open a folder that is marked as untrusted, without its settings",
        {"accept": ("Up", "Enter")},
        "set its trust_level in config.toml",
    ),
    Dialog(
        "update",
        "whether to install a newer version",
        {"skip": ("2",), "skip-version": ("3",)},
        "set check_for_update_on_startup = false in config.toml",
    ),
    Dialog(
        "hooks",
        "whether new hooks are trusted",
        {"trust": ("Down", "Enter"), "skip": ("3",)},
        "review them in this home once, with /hooks",
    ),
    Dialog(
        "directory",
        "in which directory to go on with the conversation",
        {"session": ("1",), "current": ("2",)},
    ),
    Dialog(
        "daemon",
        "how to go on beside a background server with other features",
        {"without": ("1",)},
        "leave features.daemon_auto_start out of failover.args",
    ),
    Dialog("login", "for a login", {}, "run `codex login` with this CODEX_HOME"),
    Dialog("migration", "whether to change to a new model", {}, "choose one in this home once, with /model"),
    Dialog(
        "model",
        "whether to change to another model, since a limit is near",
        {"keep": ("2",), "keep-always": ("3",)},
        "choose `Keep current model (never show again)` in this home once",
    ),
    Dialog("command-center", "which conversation to open", {}, "press Esc, or start it again"),
)


@dataclass(frozen=True)
class _Mark:
    """By what a dialog is known: the begin of one of its rows, and what its entries begin with."""

    name: str
    head: re.Pattern[str]
    entries: tuple[tuple[str, str], ...] = ()
    """The begin of an entry, and the answer that it gives."""
    menu: bool = True


def _mark(name: str, head: str, *entries: tuple[str, str], menu: bool = True) -> _Mark:
    return _Mark(name, re.compile(rf"\W*(?:{head})", re.IGNORECASE), entries, menu)


_MARKS = (
    _mark("trust", r"Trust this folder\?", ("Trust and continue", "accept")),
    _mark("restricted", r"Config, hooks, and exec policies from untrusted", ("Open restricted", "accept")),
    _mark(
        "update",
        r"Update available\b.*(?:→|->)",
        ("Skip until next version", "skip-version"),
        ("Skip", "skip"),
    ),
    _mark("hooks", r"Hooks need review", ("Trust all", "trust"), ("Continue without", "skip")),
    _mark(
        "directory",
        r"Working directory\s+·",
        ("Use session directory", "session"),
        ("Use current directory", "current"),
    ),
    _mark("daemon", r"Background server has incompatible", ("Run without daemon", "without")),
    _mark("login", r"(?:Sign in with ChatGPT to use Codex|Choose how you want to use Codex)"),
    _mark("migration", r"Codex just got an upgrade"),
    _mark(
        "model",
        r"Approaching rate limits$",
        ("Keep current model (never", "keep-always"),
        ("Keep current model", "keep"),
    ),
    _mark("open-elsewhere", re.escape(OPEN_ELSEWHERE), menu=False),
    _mark("command-center", r"Agent command center\s", menu=False),
)
_PERMISSIONS = (
    (re.compile(r"\s*Would you like to run the following"), "permission: command"),
    (re.compile(r"\s*Would you like to make the following edits"), "permission: edits"),
    (re.compile(r"\s*Would you like to grant these permissions"), "permission: permissions"),
    (re.compile(r"\s*Would you like to send input"), "permission: input to a terminal"),
)
_CURSOR = re.compile(r"\s*[›>❯]\s*\d{1,2}\.\s+(\S.*)")
_FOOTER = re.compile(
    r"\s*(?:press )?enter (?:to )?(?:continue|confirm|select|submit)\b|\s*r retry\b|\s*\? help\s",
    re.IGNORECASE,
)
_COMPOSER = re.compile(r"›(?:\s|$)")
_STATUS = re.compile(r"\s+\S.* · \S")
_HINTS = re.compile(r"\s+(?:←|\?) .*(?:shortcuts|agents)")
_WORKS = re.compile(r"\s*[•◦] .*\besc to interrupt\b", re.IGNORECASE)
_LOADING = re.compile(r"\s+(?:loading|Resuming session…?)\s*$")
_SPINNER = re.compile(r"[⠁-⣿] ?")
_ACTION = re.compile(r"\[ [!.] \] Action Required")
_RETRIES = re.compile(r"\s*[•◦] (.*?\breconnecting\b\D{0,9}\d+/\d+)", re.IGNORECASE)
_DETAIL = re.compile(r"\s+└ (.*)")
_FATAL = re.compile(
    r"\s*(No saved session found with ID .*|Error loading config.*|error: unexpected argument .*"
    r"|Refusing to start the interactive TUI.*|Error: loading config.*)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Seen:
    """What one screen says."""

    state: State | None = None
    """`working`, `waiting`, or `idle` where it takes a prompt; None: it does not tell."""
    what: str = ""
    """What it waits for."""
    dialog: str | None = None
    """The dialog that is open, by its name in `DIALOGS`."""
    chosen: str | None = None
    """Which answer the cursor of its menu is at."""
    by_title: bool = False
    """The title says so, and not the screen."""
    composed: bool = False
    """There is an input box with a line about the model below it: what is drawn once it is ready."""
    fatal: str = ""
    """Why it will not become ready, in its own words."""
    retrying: Fault | None = None
    """What keeps it from an answer, while it tries again."""


def read(screen: Screen, now: float) -> Seen:
    """Return what a screen says.

    Args:
        screen: the screen.
        now: epoch seconds.
    """
    rows = [row.rstrip() for row in screen.rows if row.strip()]
    found = _dialog(rows)
    if found is not None:
        return found
    if _ACTION.match(screen.title):
        return Seen(State.WAITING, "permission", by_title=True)
    retrying = _retrying(rows, now)
    if _SPINNER.match(screen.title):
        return Seen(State.WORKING, by_title=True, retrying=retrying)
    if any(_WORKS.match(row) for row in rows):
        return Seen(State.WORKING, retrying=retrying)
    composer = max((index for index, row in enumerate(rows) if _COMPOSER.match(row)), default=None)
    if composer is None:
        fatal = next((match[1] for row in rows if (match := _FATAL.match(row))), "")
        return Seen(fatal=" ".join(fatal.split()))
    if any(_LOADING.match(row) for row in rows):
        return Seen()
    below = rows[composer + 1 :]
    composed = any(_STATUS.match(row) and not _HINTS.match(row) for row in below)
    return Seen(State.IDLE if below else None, composed=composed)


def _dialog(rows: Sequence[str]) -> Seen | None:
    """Return the dialog or question that is the lowest thing on a screen; None when there is none."""
    if not any(_FOOTER.match(row) for row in rows[-FOOT_ROWS:]):
        return None
    cursors = [(index, match[1]) for index, row in enumerate(rows) if (match := _CURSOR.match(row))]
    at, cursor = cursors[-1] if cursors else (len(rows), "")
    menu = bool(cursors) and not any(_COMPOSER.match(row) for row in rows[at + 1 :])
    asked = rows[max(0, at - HEAD_ROWS) : at]
    for pattern, what in _PERMISSIONS if menu else ():
        if any(pattern.match(row) for row in asked):
            return Seen(State.WAITING, what)
    for mark in _MARKS:
        if (menu or not mark.menu) and any(mark.head.match(row) for row in (asked if mark.menu else rows)):
            chosen = next((word for begin, word in mark.entries if cursor.startswith(begin)), OTHER)
            what = "login" if mark.name == "login" else f"dialog: {mark.name}"
            return Seen(State.WAITING, what, mark.name, chosen if mark.menu else None)
    return Seen(State.WAITING, "dialog") if menu else None


def _retrying(rows: Sequence[str], now: float) -> Fault | None:
    """Return what the client says below `Reconnecting... 2/5`, the only place where it says it."""
    for index, row in enumerate(rows):
        if match := _RETRIES.match(row):
            detail = _DETAIL.match(rows[index + 1]) if index + 1 < len(rows) else None
            words = " ".join((detail[1] if detail else match[1]).split())
            known = usage_limits.read(f"■ {words}", now)
            kind = FaultKind.RATE_LIMIT if "server is busy" in match[1].lower() else FaultKind.NETWORK
            fault = known if known is not None else Fault(kind)
            return replace(fault, text=words, retrying=True)
    return None
