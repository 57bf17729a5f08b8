"""What is known of an account: learned from what clients say, corrected by the next success. The table, only.

Not written yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import AccountState


@dataclass(frozen=True)
class Usage:
    """How much of one window of an account is used, as a client says."""

    window: str
    """`5-hour`, `weekly`, ..., as in `policy.usage_limits`."""
    used: float
    """From 0 to 1; more than 1 is used up too."""
    resets_at: float | None
    """Epoch seconds; None: unknown."""
    at: float
    """When the client said so, in epoch seconds."""


@dataclass(frozen=True)
class ModelLimit:
    """A limit of one model, which is none of the account."""

    name: str
    """`opus`, `sonnet`, `fable`, ..."""
    until: float | None
    seen_at: float


@dataclass(frozen=True)
class Known:
    """What is known of an account; times in epoch seconds."""

    name: str
    runtime: str
    state: AccountState = AccountState.UNKNOWN
    limit_name: str | None = None
    until: float | None = None
    """When the limit resets; None: unknown, or there is none."""
    text: str | None = None
    since: float | None = None
    seen_at: float | None = None
    seen_by: str | None = None
    source: str | None = None
    answered_at: float | None = None
    used_at: float | None = None
    models: tuple[ModelLimit, ...] = ()
    usage: tuple[Usage, ...] = ()
