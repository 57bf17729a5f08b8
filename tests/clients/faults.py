"""What can go wrong with an account, in the words of the tests; how it looks is the interfaces' matter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fault(str, Enum):
    """One way in which an account, or the way to it, fails."""

    LIMIT_5H = "limit-5h"
    """The subscription's five hours are used up."""
    LIMIT_WEEK = "limit-week"
    """Its week is."""
    LIMIT_OPUS = "limit-opus"
    """Its week with Opus is: other models go on."""
    NEAR_LIMIT = "near-limit"
    """Answers, and says that 95 % of the five hours are used."""
    RATE = "rate"
    """Too many requests, by a key's own limit: goes on in a moment."""
    OVERLOADED = "overloaded"
    """529: the service is overloaded."""
    BROKEN = "broken"
    """500."""
    UNAUTHORIZED = "unauthorized"
    """401."""
    FORBIDDEN = "forbidden"
    """403."""
    CREDIT = "credit"
    """The prepaid credit is used up."""
    CUT = "cut"
    """The connection is reset before an answer."""
    HANG = "hang"
    """The request is taken and nothing is answered, until the fault is taken back."""


@dataclass(frozen=True)
class Failing:
    """A fault as it is set for an account."""

    fault: Fault
    resets_at: int
    """When a limit resets, in epoch seconds."""

    def concerns(self, model: str) -> bool:
        """Say whether a request for this model fails."""
        return self.fault is not Fault.LIMIT_OPUS or "opus" in model


@dataclass(frozen=True)
class Refusal:
    """An answer in place of the wanted one."""

    status: int
    body: dict[str, object]
    headers: tuple[tuple[str, str], ...] = ()
