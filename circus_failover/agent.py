"""One enrolled agent inside circusd: its watcher, its settings, and what is remembered of it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circus_failover import agent_health
from circus_failover.agent_health import Seen
from circus_failover.agent_settings import AgentSettings
from circus_failover.heartbeats import Heard
from circus_failover.policy.health import Health
from circus_failover.process_table import ProcessId
from circus_failover.records import ActionRow, AgentRow, AssignmentRow
from circus_failover.words import Asked, Cause, Mode, Phase, State, WakeAsked

UNPARKED: dict[str, Any] = dict.fromkeys(("parked_by", "parked_at", "parked_conversation"))
"""The columns of a park that is spent."""
BEING_REMOVED = "it is being removed"
NOWHERE: dict[str, Any] = dict.fromkeys(("pid", "pid_start", "server_pid", "server_start", "pane"))
"""The columns of a launch that is not there yet, or not any more."""
COARSE_SECS = 2.0
"""tmux tells the time of an end in whole seconds; what was noticed within so many is known better here."""
LIVE_PHASES = frozenset({Phase.STARTING, Phase.UP, Phase.STOPPING})


@dataclass(frozen=True)
class Ticket:
    """Somebody asked for this agent's bring-up; without one, nothing is launched."""

    asked: Asked
    who: str
    wake: WakeAsked = WakeAsked.NOTHING
    """Whether it must be fresh, or a resume."""
    topic: str | None = None
    """What it is brought up for."""


@dataclass(frozen=True)
class KeeperPlan:
    """The environment of the next keeper, which is all it is told."""

    environment: dict[str, str]


@dataclass
class Starting:
    """A launch that is not proven ready yet."""

    begun: float
    """Epoch seconds of the launch."""
    error_file: Path
    ready_from: float | None = None
    """Epoch seconds since when the agent itself runs; None while nothing was reported."""
    watch: ProcessId | None = None
    """The worker that watches the boot, where something has to be looked for."""
    watch_after: float = 0.0
    """Monotonic seconds before which no other one is started."""
    proof: str | None = None
    """What that worker has found to say that it is ready; None while it is not."""
    conversation: str | None = None
    """The conversation that its client said it is in."""
    answered: str = ""
    """The dialogs that were answered, and how."""
    hopeless: str | None = None
    """Why it will not become ready."""
    dialog: str | None = None
    """The dialog that it got no further than."""
    last_words: str = ""
    """How far it was when its time was over."""
    pushed: str | None = None
    """What the worker can read of what its client's hooks have reported."""


@dataclass
class Agent:
    """Everything circusd knows of one agent; `row` is what is stored, the rest is of this circusd."""

    watcher: Any
    identity: str
    row: AgentRow
    settings: AgentSettings | None = None
    parsed: tuple[dict[str, object], object] | None = None
    """What the settings were made of: the watcher's configuration and failover.yaml; None: read them anew."""
    problems: str | None = None
    """Why the settings cannot be used."""
    coming_back: bool = False
    """It was stuck, and is being brought back."""
    observe_wanted: bool | None = None
    """What the section says of `failover.mode`, also when the rest of it is wrong; None: nothing."""
    last_cause: str | None = None
    """How its last ended launch ended."""
    ticket: Ticket | None = None
    plan: KeeperPlan | None = None
    waking: bool = False
    """A wake is under way; another one waits for it."""
    restoring: bool = False
    """What was refused last was circusd's own start of it."""
    not_launched: tuple[Cause, str] | None = None
    """Why the start that was asked for just now launched nothing and changed nothing."""
    starting: Starting | None = None
    action: ActionRow | None = None
    """The deliberate end that is under way."""
    died_at: float | None = None
    """When tmux says that its process ended, in epoch seconds, while that is looked into."""
    wedged: bool = False
    heard: Heard | None = None
    """What was last found of its heartbeat; of an earlier launch, or too long ago, it means nothing."""
    seen: Seen | None = None
    """What it was last seen to do; of an earlier launch, or too long ago, it means nothing."""
    said_state: State | None = None
    """The state that was published last."""
    divergence: str | None = None
    """What the gate would say, found when a live agent was adopted."""
    judged_accounts: int = 0
    """How many account homes the gate looked at."""
    forgotten: bool = False
    """No section names it any more, so nothing more is heard here; one that comes back is another object."""
    readopting: bool = False
    readopt_failures: int = 0
    readopt_after: float = 0.0
    """Monotonic seconds before which its keeper is not tried again."""
    changed: list[asyncio.Future[None]] = field(default_factory=list)
    """Woken at every change of phase."""

    @property
    def phase(self) -> Phase:
        """What the supervisor holds it to."""
        return Phase(self.row.phase)

    @property
    def observed(self) -> bool:
        """Whether it is only watched and shown; a section that cannot be read never changes that."""
        if self.problems is None and self.settings is not None:
            return self.settings.mode is Mode.OBSERVE
        return self.phase is Phase.OBSERVED if self.observe_wanted is None else self.observe_wanted

    @property
    def refused_by_silence(self) -> bool:
        """Whether its last launch was refused since its tmux server did not answer."""
        return (self.row.phase, self.row.cause) == (Phase.REFUSED, Cause.SERVER_WEDGED)

    @property
    def removed(self) -> bool:
        """Whether it is being taken out of Circus for good: nothing launches it any more."""
        return bool(getattr(self.watcher, "failover_removed", False))

    def leave(self) -> None:
        """Let no start that waits for its turn launch it any more (`hooks.enrol`): it is removed."""
        self.watcher.failover_removed = True

    @property
    def socket(self) -> Path | None:
        """Its tmux server's socket: of the recorded launch while that lives, else as configured."""
        if self.row.socket and self.phase in LIVE_PHASES:
            return Path(self.row.socket)
        if self.settings is not None:
            return self.settings.socket
        return Path(self.row.socket) if self.row.socket else None

    @property
    def session(self) -> str | None:
        """Its tmux session, like `socket`."""
        if self.row.session and self.phase in LIVE_PHASES:
            return self.row.session
        return self.settings.session if self.settings is not None else self.row.session

    @property
    def reason(self) -> str | None:
        """What there is to say: of its phase, of its settings, of its account homes."""
        return self.row.reason or self.problems or self.divergence

    def wake_waiters(self) -> None:
        """Let everybody who awaits `next_change` look again."""
        waiting, self.changed = self.changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def next_change(self, timeout: float) -> bool:
        """Wait for the next change of phase; False when `timeout` seconds passed without one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.changed.append(future)
        done, _ = await asyncio.wait([future], timeout=timeout)
        return bool(done)

    def last_look(self) -> Seen | None:
        """Return what it was last seen to do in this very launch, however long ago; None: nothing."""
        seen = self.seen
        return seen if seen is not None and seen.of(self.row.generation, self.row.process) else None

    def health(self) -> Health:
        """Return what it was last seen to do; unknown where that does not hold any more, with the reason."""
        seen = self.last_look()
        if seen is None:
            return Health(State.UNKNOWN)
        if not seen.holds(time.time()):
            return Health(State.UNKNOWN, at=seen.at, evidence=f"not looked at since {_local_time(seen.at)}")
        return seen.health

    def state(self) -> State | None:
        """What it does, as far as it is up; a server that does not answer says more than its agent."""
        if self.phase not in (Phase.UP, Phase.OBSERVED) or self.row.pid is None:
            return None
        if self.wedged:
            return State.WEDGED
        heard = self.heartbeat()
        return State.STUCK if heard is not None and heard.stuck else self.health().state

    def heartbeat(self) -> Heard | None:
        """Return what was found of this very launch's heartbeat, while that holds; None: nothing."""
        heard = self.heard
        if heard is None or not heard.of(self.row.generation, self.row.process):
            return None
        return heard if heard.holds(time.time()) else None

    def last_activity(self, terminal: str | None) -> float | None:
        """Return when its terminal last moved, in epoch seconds (8 s granularity), or None."""
        if terminal is None:
            return None
        try:
            return os.stat(terminal).st_mtime
        except OSError:
            return None

    def _newest_activity(self, terminal: str | None) -> float | None:
        """Return when its terminal last moved or its client last did something, in epoch seconds, or None."""
        seen = self.last_look()
        told = seen.last_activity if seen is not None else None
        return max((at for at in (self.last_activity(terminal), told) if at is not None), default=None)

    def view(self, terminal: str | None, has: AssignmentRow | None = None) -> dict[str, Any]:
        """Return the object that every front end shows; fields are added, never renamed.

        Args:
            terminal: the path of its terminal, as far as it is known.
            has: the assignment that it has.
        """
        settings, row = self.settings, self.row
        runs = row.pid is not None and self.phase in LIVE_PHASES | {Phase.OBSERVED}
        state = self.state()
        health = self.health() if state not in (None, State.WEDGED) else Health(State.UNKNOWN)
        heard = self.heartbeat() if runs else None
        if heard is not None and state is State.STUCK:
            health = Health(state, at=heard.at, evidence=heard.evidence)
        return {
            "identity": self.identity,
            "phase": str(self.phase),
            "state": str(state) if state else None,
            "reason": self.reason,
            "cause": row.cause,
            "last_cause": self.last_cause,
            "runtime": settings.runtime if settings else None,
            "account": self._account(runs),
            "pool": settings.pool if settings else None,
            "mode": str(settings.mode) if settings else None,
            "restart": str(settings.restart) if settings else None,
            "generation": row.generation,
            "pid": row.pid if runs else None,
            "session": self.session,
            "socket": str(self.socket) if self.socket else None,
            "server_pid": row.server_pid if runs else None,
            "since": row.since or None,
            "last_activity": self._newest_activity(terminal) if runs else None,
            "assignment": has.id if has is not None else None,
            "assignment_state": has.state if has is not None else None,
            "assignment_since": (
                has.working_at or has.delivered_at or has.dispatched_at if has is not None else None
            ),
            "heartbeat_at": heard.at if heard is not None else None,
            "wedged": self.wedged,
            "conversation": row.conversation,
            "parked_by": row.parked_by,
            "held_until": self._held_until(),
            "state_source": str(health.source) if health.source else None,
            "state_at": health.at,
            "state_what": health.what or None,
            "state_evidence": health.evidence or None,
            "fault": agent_health.plain_fault(health.fault) if health.fault else None,
            "switched_from": row.switched_from if row.switched_to is not None else None,
            "switching_from": row.switching,
            "limited_until": row.limited_until if self._held_for_limit() else None,
        }

    def _account(self, runs: bool) -> str | None:
        """Return the account that its live launch runs on; of one that is down, that of its next launch."""
        if runs and self.row.launch is not None and self.row.account is not None:
            return self.row.account
        named = self.settings.account if self.settings is not None else None
        return named.name if named is not None else self.row.account

    def _held_for_limit(self) -> bool:
        return self.phase is Phase.HELD and self.row.cause == str(Cause.LIMITED)

    def _held_until(self) -> float | None:
        """Return until when it is held, by its crash loop or for its account, in epoch seconds."""
        if self._held_for_limit():
            return self.row.limited_until
        return self.row.loop_until if self.row.loop == "open" else None


def _local_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))
