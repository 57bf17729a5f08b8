"""What agents were seen to do, as JSON: in the store, and on its way from a plugin to circusd.

Read strictly: what is not what this module writes is None as a whole, and never half a health. Nothing is
decided or looked at here.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from circus_failover import account_rows
from circus_failover.policy.accounts import Usage
from circus_failover.policy.health import Fault, Health
from circus_failover.process_table import ProcessId
from circus_failover.words import FaultKind, Source, State, Word

LOOKER = "AgentStates"
"""The plugin that looks at what agents do."""
TEXT_SHOWN = 500
"""How much of a client's own words is kept."""
MISSED_LOOKS = 3
SLACK_SECS = 5.0
"""What was seen holds for so many looks that did not come, and a slow host's delay."""
_STATES = (State.IDLE, State.WORKING, State.WAITING, State.LIMITED, State.UNKNOWN)
_CONVERSATION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_KEY = re.compile(r"\b(?:(?:sk|pk|ak|rk|sess)[-_]|eyJ)[-_A-Za-z0-9.*…]{8,}")
_OPAQUE = re.compile(r"[A-Za-z0-9_*-]{40,}")
"""What may be a key or a token: a client may quote one that is not taken, some of it as asterisks or dots."""
_GREATEST = 2**63
_WINDOWS = 16
"""No account has so many windows."""
W = TypeVar("W", bound=Word)


@dataclass(frozen=True)
class Look:
    """One look at an agent, as a plugin tells circusd of it."""

    identity: str
    generation: int
    process: ProcessId
    """Whom was looked at: the agent's own process."""
    at: float
    """When, in epoch seconds."""
    health: Health | None
    """None: as it was told the last time."""
    conversation: str | None = None
    """The conversation its client is in; None: that cannot be told."""
    last_activity: float | None = None
    """When its client last did something, in epoch seconds; None: that cannot be told."""
    answered_at: float | None = None
    """When the model last answered in this launch, in epoch seconds; None: it has not, or nobody knows."""
    usage: tuple[Usage, ...] = ()
    """How much of its account's windows is used, as its client said in this launch."""


@dataclass(frozen=True)
class Seen:
    """What an agent was last seen to do, and when and how often it is looked at."""

    generation: int
    process: ProcessId
    at: float
    """When it was looked at, in epoch seconds."""
    interval: float
    """Seconds from one look to the next."""
    health: Health
    last_activity: float | None = None

    def of(self, generation: int, process: ProcessId | None) -> bool:
        """Say whether this is about this very launch and process."""
        return self.generation == generation and self.process == process

    def holds(self, now: float) -> bool:
        """Say whether it is still to be believed, at a time in epoch seconds."""
        return now - self.at <= MISSED_LOOKS * self.interval + SLACK_SECS


def told(look: Look) -> dict[str, Any]:
    """Return a look as JSON takes it."""
    return {
        "identity": look.identity,
        "generation": look.generation,
        "pid": look.process.pid,
        "pid_start": look.process.start,
        "at": look.at,
        "health": None if look.health is None else plain(look.health),
        "conversation": look.conversation,
        "last_activity": look.last_activity,
        "answered_at": look.answered_at,
        "usage": [asdict(one) for one in look.usage],
    }


def heard(said: object) -> Look | None:
    """Return the look that `told` made this of; None when it is anything else."""
    try:
        values = _mapping(said)
        conversation, health = values["conversation"], values["health"]
        if conversation is not None and not is_conversation(conversation):
            return None
        return Look(
            identity=_text(values["identity"]),
            generation=_whole(values["generation"]),
            process=ProcessId(_whole(values["pid"]), _whole(values["pid_start"])),
            at=_time(values["at"]),
            health=None if health is None else _health(health),
            conversation=conversation,
            last_activity=_time_or_none(values["last_activity"]),
            answered_at=_time_or_none(values["answered_at"]),
            usage=_usage(values["usage"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def text(seen: Seen) -> str:
    """Return what was seen as the store keeps it (`AgentRow.health`)."""
    return json.dumps(
        {
            "generation": seen.generation,
            "pid": seen.process.pid,
            "pid_start": seen.process.start,
            "seen": seen.at,
            "interval": seen.interval,
            "last_activity": seen.last_activity,
            **plain(seen.health),
        }
    )


def read(stored: str | None) -> Seen | None:
    """Return what the store keeps of an agent's health; None when there is nothing, or it makes no sense."""
    if stored is None:
        return None
    try:
        values = _mapping(json.loads(stored))
        return Seen(
            generation=_whole(values["generation"]),
            process=ProcessId(_whole(values["pid"]), _whole(values["pid_start"])),
            at=_time(values["seen"]),
            interval=_time(values["interval"]),
            health=_health(values),
            last_activity=_time_or_none(values["last_activity"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def plain(health: Health) -> dict[str, Any]:
    """Return a health as JSON takes it; the words of clients are cut to `TEXT_SHOWN` characters."""
    return {
        "state": str(health.state),
        "source": None if health.source is None else str(health.source),
        "at": health.at,
        "what": without_keys(health.what)[:TEXT_SHOWN],
        "fault": None if health.fault is None else plain_fault(health.fault),
        "evidence": without_keys(health.evidence)[:TEXT_SHOWN],
    }


def without_keys(text: str) -> str:
    """Return a client's words without what is certainly a key or a token; a long name of a folder is none."""
    return _KEY.sub("[key]", text)


def plain_fault(fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON takes it; front ends show it as it is, so that nothing like a key is in it."""
    return {
        "kind": str(fault.kind),
        "window": None if fault.window is None else fault.window[:TEXT_SHOWN],
        "resets_at": fault.resets_at,
        "text": _OPAQUE.sub("[key]", without_keys(fault.text))[:TEXT_SHOWN],
        "model_only": fault.model_only,
        "retrying": fault.retrying,
    }


def is_conversation(value: object) -> bool:
    """Say whether this may be the id of a conversation: it becomes an argument and part of a path."""
    return isinstance(value, str) and _CONVERSATION.fullmatch(value) is not None


def _health(said: object) -> Health:
    values = _mapping(said)
    state, source = _word(State, values["state"]), values["source"]
    if state not in _STATES:
        raise ValueError(f"{state} is nothing that a client tells")
    fault = values["fault"]
    return Health(
        state=state,
        source=None if source is None else _word(Source, source),
        at=_time_or_none(values["at"]),
        what=_text(values["what"]),
        fault=None if fault is None else _fault(fault),
        evidence=_text(values["evidence"]),
    )


def _fault(said: object) -> Fault:
    values = _mapping(said)
    window = values["window"]
    return Fault(
        kind=_word(FaultKind, values["kind"]),
        text=_text(values["text"]),
        window=None if window is None else _text(window),
        resets_at=_time_or_none(values["resets_at"]),
        model_only=_switch(values["model_only"]),
        retrying=_switch(values["retrying"]),
    )


def _usage(said: object) -> tuple[Usage, ...]:
    if not isinstance(said, list) or len(said) > _WINDOWS:
        raise TypeError("expected a list of windows")
    return tuple(account_rows.usage(one) for one in said)


# -- one value each; TypeError or ValueError when it is not that -----------------------------------------


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("expected a mapping")
    return value


def _word(kind: type[W], value: object) -> W:
    if not isinstance(value, str):
        raise TypeError("expected a word")
    return kind(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_SHOWN:
        raise TypeError("expected a text")
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected true or false")
    return value


def _whole(value: object) -> int:
    # More than a column of the store holds would fail there, long after it was taken.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _GREATEST:
        raise TypeError("expected a whole number")
    return value


def _time(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError("expected seconds")
    return float(value)


def _time_or_none(value: object) -> float | None:
    return None if value is None else _time(value)
