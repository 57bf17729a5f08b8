"""The words of the design as enums: one spelling in code, store, log, screen and documentation.

Nothing here decides anything; `policy/` decides, in these words.
"""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A word that prints and serialises as itself."""

    def __str__(self) -> str:
        return str(self.value)


class Phase(Word):
    """What the supervisor holds an agent to."""

    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    PARKED = "parked"
    DOWN = "down"
    HELD = "held"
    REFUSED = "refused"
    STOPPED = "stopped"
    OBSERVED = "observed"


class State(Word):
    """What an agent that is up does."""

    IDLE = "idle"
    WORKING = "working"
    WAITING = "waiting"
    LIMITED = "limited"
    STUCK = "stuck"
    WEDGED = "wedged"
    UNKNOWN = "unknown"


class Asked(Word):
    """Who wants a bring-up, which is what decides whether a launch may follow."""

    START = "start"
    """An operator's `start` or `restart`: launches, and clears `stopped`."""
    RESTORE = "restore"
    """circusd's own start, or a section that reloadconfig brought: the fleet as it was."""
    ADOPT = "adopt"
    """A reload, a respawned keeper, a tick: only what is alive is taken in again."""


class Liveness(Word):
    """What the process table and tmux say about an agent right now."""

    LIVE = "live"
    DEAD = "dead"
    """Proven: the recorded process is gone, or nothing of that name runs."""
    REMAINS = "remains"
    """Dead, but something of the launch is left (a dead pane, a survivor) and must be cleared first."""
    UNKNOWN = "unknown"
    """A probe failed or timed out: nothing follows from it."""


class IntentAction(Word):
    """What a deliberate end is for; it is written before anything is killed."""

    STOP = "stop"
    RESTART = "restart"
    REMOVE = "rm"
    CLEAR = "clear"
    """The remains of a launch that is already dead are cleared away."""


class Cause(Word):
    """Why an agent is in its phase, or how a launch ended."""

    FIRST_START = "first-start"
    OPERATOR_START = "operator-start"
    OPERATOR_STOP = "operator-stop"
    OPERATOR_RESTART = "operator-restart"
    REMOVED = "removed"
    RESTORED = "restored"
    RESTART_POLICY = "restart-policy"
    INTERRUPTED_START = "interrupted-start"
    ADOPTED = "adopted"
    ADOPTED_FOREIGN = "adopted-foreign"
    OBSERVED = "observed"
    SETTINGS = "settings"
    SHARED_STATE = "shared-state"
    TMUX_MISSING = "tmux-missing"
    SERVER_WEDGED = "server-wedged"
    STATE_DIR = "state-dir"
    GATE_FAILED = "gate-failed"
    LAUNCH_FAILED = "launch-failed"
    EXITED = "exited"
    SIGNALED = "signaled"
    SESSION_GONE = "session-gone"
    SERVER_LOST = "server-lost"
    HOST_REBOOT = "host-reboot"
    ENDED_UNKNOWN = "ended-unknown"
