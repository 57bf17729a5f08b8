"""How much of an account's windows is used: what Claude Code tells its status line, and how it is asked to.

Facts are of Claude Code 2.1.329: a status line's command gets JSON on standard input at each change, and, of
a subscription, once the model has answered in this process, `rate_limits`: `five_hour` and `seven_day`, each
`used_percentage` (0 to 100) and `resets_at` (epoch seconds). An empty answer shows nothing. `--settings` goes
before the settings of the user and of the project, so it is given only where neither has a status line.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover.agents import claude_transcript
from circus_failover.agents.claude_files import load, mapping, seconds
from circus_failover.policy.accounts import Usage

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings

EVENT = "StatusLine"
"""What the reporter is told that it reports."""
WINDOWS = {name: claude_transcript.WINDOWS[name] for name in ("five_hour", "seven_day")}
"""The windows that it tells, in the words of `policy.usage_limits`."""
MOST = 10.0
"""More than ten times a window is no share of it."""
_SETTINGS = "--settings"
_KEY = "statusLine"


def arguments(agent: AgentSettings) -> tuple[str, ...]:
    """Return what lets a client report how much is used; nothing where somebody's own status line is.

    Args:
        agent: the agent as configured; without an account nobody would learn from it.
    """
    given = (*agent.command[1:], *agent.args)
    if agent.account is None or any(word.split("=", 1)[0] == _SETTINGS for word in given):
        return ()
    project = agent.working_dir / ".claude"
    places = (
        agent.account.home / "settings.json",
        project / "settings.json",
        project / "settings.local.json",
    )
    command = _command()
    if command is None or any(_has_status_line(path) for path in places):
        return ()
    return (_SETTINGS, json.dumps({_KEY: {"type": "command", "command": command}}))


def of_event(event: Mapping[str, Any] | None) -> tuple[Usage, ...]:
    """Return what a report of the status line says; nothing where it says nothing of windows.

    Args:
        event: as `client_events` keeps it, with `at`.
    """
    at = seconds(event.get("at")) if event is not None else None
    if event is None or at is None:
        return ()
    found = []
    for name, said in mapping(event.get("rate_limits")).items():
        values = said if isinstance(said, Sequence) and len(said) == 2 else (None, None)
        used, resets_at = values
        if name in WINDOWS and isinstance(used, (int, float)) and not isinstance(used, bool):
            found.append(Usage(WINDOWS[name], float(used) / 100, seconds(resets_at), at))
    return tuple(found)


def kept(said: object) -> dict[str, list[float | None]] | None:
    """Return what is kept of `rate_limits`: for each window how much is used, and when it resets.

    Args:
        said: the client's own value, or anything else; then the answer is None.
    """
    found: dict[str, list[float | None]] = {}
    for name in WINDOWS:
        window = mapping(mapping(said).get(name))
        used = window.get("used_percentage")
        # Also for nan, which is not comparable.
        if isinstance(used, (int, float)) and not isinstance(used, bool) and 0 <= used <= MOST * 100:
            found[name] = [float(used), seconds(window.get("resets_at"))]
    return found or None


@functools.lru_cache(maxsize=1)
def _command() -> str | None:
    """Return what the client runs; None where the reporter is not installed."""
    # Workers start often, and start no client.
    from circus_failover import client_hooks

    try:
        return client_hooks.command(client_hooks.reporter(), EVENT)
    except client_hooks.HooksError:
        return None


def _has_status_line(path: Path) -> bool:
    """Say whether a settings file has a status line, or cannot be read, which may hide one."""
    found, problem = load(path)
    return bool(problem) or _KEY in found
