"""What an agent that is up does, decided from signs: statements of its client, each with a source and a time.

Pure: a runtime collects the signs (`agents.runtime.Runtime.look`), this weighs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circus_failover.words import FaultKind, Source, State


@dataclass(frozen=True)
class Fault:
    """What kept a client from an answer."""

    kind: FaultKind
    text: str = ""
    """The client's own words, on one line."""
    window: str | None = None
    """Of a limit: `5-hour`, `weekly`, `opus`, ...; None: it does not say."""
    resets_at: float | None = None
    """Epoch seconds; None: unknown, which is not now."""
    model_only: bool = False
    """The limit is one model's, not the account's."""
    retrying: bool = False
    """The client tries again by itself."""


@dataclass(frozen=True)
class Sign:
    """One statement about what an agent does."""

    source: Source
    at: float | None
    """Epoch seconds since when it says so; None: that cannot be told."""
    state: State | None = None
    """`idle`, `working` or `waiting`; None: it tells only how the last turn went."""
    what: str = ""
    """What is worked at or waited for."""
    fault: Fault | None = None
    """How the last turn failed."""
    answered: bool = False
    """The model has answered at this time, so a fault before it is over."""


@dataclass(frozen=True)
class Health:
    """What an agent does, and what says so."""

    state: State
    source: Source | None = None
    at: float | None = None
    """Epoch seconds since when the evidence says so; None: that cannot be told."""
    what: str = ""
    """What it works at or waits for."""
    fault: Fault | None = None
    """What its last turn failed at, while nothing succeeded since."""
    evidence: str = ""


def decide(signs: Sequence[Sign], launched_at: float, now: float) -> Health:
    """Return what an agent does.

    Args:
        signs: what was seen, in any order.
        launched_at: epoch seconds; a sign that is older says nothing about this launch.
        now: epoch seconds.
    """
    fresh = [sign for sign in signs if sign.at is None or sign.at >= launched_at]
    telling = sorted((sign for sign in fresh if sign.state is not None), key=lambda sign: sign.source.rank)
    if not telling:
        return Health(State.UNKNOWN, evidence="nothing tells what it does")
    first = telling[0]
    assert first.state is not None
    return Health(first.state, first.source, first.at, first.what, evidence=f"{first.source}: {first.state}")
