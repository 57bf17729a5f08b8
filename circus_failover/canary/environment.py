"""What the canary's environment may hold: little, since survivors of a launch are found by theirs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = ("PATH", "HOME", "TZ", "FAILOVER_CRASH_AT")


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the canary starts with: none of an agent, and none of a tmux server."""
    return {name: environment[name] for name in KEPT if name in environment}
