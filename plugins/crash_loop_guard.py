"""The crash-loop guard: asks circusd to bring back what ended by itself, and to let a hold half-open in time.

Deaths are counted, and agents held, inside circusd, where the gate is; here is what happens when a time has
come. When is `policy.respawn`, at what pace after a mass death `policy.incident`. It launches nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circus_failover import launch_ends
from circus_failover.plugin import FailoverPlugin, Refused, Said, Silent
from circus_failover.plugin_input import AgentPolicy, Event, agent_policy
from circus_failover.policy import incident, respawn
from circus_failover.policy.crash_loop import Ended, LoopState
from circus_failover.policy.incident import Life, Pace
from circus_failover.policy.respawn import Fallen, Respawn, RespawnAction
from circus_failover.records import AgentRow, LaunchRow
from circus_failover.store import Reader
from circus_failover.words import Cause, Loop, NoticeKind, Phase, Restart

AGAIN_SECS = 5.0
"""How long a request is given before it is sent again: circusd answers before it has launched."""
LOOK_BACK_SECS = 900.0
"""How far back launches are looked at: an incident is over 600 s after the last that happened in it."""
ENDS_READ = 8
"""The delay before a respawn has reached its 60 s after seven quick ends in a row."""
NAMED = 5
"""How many of those that died together are named."""
_FALLEN = (Phase.DOWN, Phase.HELD)


@dataclass(frozen=True)
class Asked:
    """A request that circusd took and whose effect is not in the store yet."""

    generation: int
    action: RespawnAction
    at: float
    """Epoch seconds."""
    until: float
    """Monotonic seconds until which it is not sent again."""


@dataclass(frozen=True)
class Work:
    """What an agent that is down has to do."""

    tasks: int
    """How many wait for it."""
    assignment: str | None
    """The id of the assignment that it has, or that waits for it by name."""


class CrashLoopGuard(FailoverPlugin):
    """Carries out `failover.restart`, and lets crash loops half-open."""

    name = "crash-loop-guard"
    default_interval = 1.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        super().__init__(*arguments, **config)
        self._asked: dict[str, Asked] = {}
        self._due: dict[str, float] = {}
        """When an agent's time comes, in epoch seconds."""
        self._timer: object | None = None
        self._reported = Said()
        self._alert: str | None = None
        self._began: float | None = None
        """When the incident began that is not over; a stop is remembered for as long as it lasts."""

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent that is down or held."""
        rows = list(store.agents(*_FALLEN).values())
        fallen = {row.identity for row in rows}
        self._due = {identity: at for identity, at in self._due.items() if identity in fallen}
        self._asked = {identity: asked for identity, asked in self._asked.items() if identity in fallen}
        self._reported.keep(fallen)
        if self._alert is not None:
            self._mind_alert(self._incident(store, time.time()))
        self._judge(store, rows)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents alone."""
        rows = (store.agent(identity) for identity in identities)
        self._judge(store, [row for row in rows if row is not None])

    def concerns(self, event: Event) -> bool:
        """What is up needs nobody to bring it back."""
        return event.phase is None or event.phase in _FALLEN

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Take in the alert that stands, so that it is not raised a second time."""
        alert, began = detail.get("alert"), detail.get("incident")
        self._alert = str(alert) if alert else None
        self._began = float(began) if began is not None else None

    def remembered(self) -> dict[str, Any]:
        """Return the alert that stands."""
        return {"alert": self._alert, "incident": self._began}

    # -- deciding --------------------------------------------------------------------------------------

    def _judge(self, store: Reader, rows: Sequence[AgentRow]) -> None:
        now, due = time.time(), []
        # Most of the time nobody is down, and thousands of assignments may wait.
        waiting, assigned = (store.waiting(), store.assigned()) if rows else ({}, {})
        for row in rows:
            work = Work(waiting.get(row.identity, 0), assigned.get(row.identity))
            try:
                verdict = self._verdict(store, row, work, now)
            except Exception as error:
                self.trouble(row.identity, error)
                continue
            self._due.pop(row.identity, None)
            if verdict is None or verdict.action is RespawnAction.LEAVE:
                continue
            at = now if verdict.at is None else verdict.at
            if at > now:
                self._due[row.identity] = at
            else:
                due.append((at, row.identity, row, verdict))
        for _, identity, row, verdict in sorted(due, key=lambda found: found[:2]):
            try:
                self._carry_out(store, row, verdict)
            except Silent as error:
                self.trouble("", error)
                break
            except Exception as error:
                self.trouble(identity, error)
        self._set_timer()

    def _verdict(self, store: Reader, row: AgentRow, work: Work, now: float) -> Respawn | None:
        """Return what the policy says of an agent; None for one whose settings circusd does not hold."""
        policy = agent_policy(row.policy)
        if row.phase not in _FALLEN or not row.declared or policy is None:
            return None
        verdict = respawn.decide(
            Fallen(
                identity=row.identity,
                generation=row.generation,
                phase=Phase(row.phase),
                stay_stopped=row.stay_stopped,
                observed=policy.observed,
                restart=policy.restart,
                loop=LoopState(Loop(row.loop), row.loop_until, row.loop_failures),
                work=work.tasks,
                ended=_ends(store, row, policy, work),
                stable_secs=policy.stable_secs,
                assigned=work.assignment is not None,
            ),
            now,
        )
        if work.assignment is None or verdict.action is RespawnAction.LEAVE:
            return verdict
        return replace(verdict, reason=f"{verdict.reason}; its assignment is {work.assignment}")

    def _carry_out(self, store: Reader, row: AgentRow, verdict: Respawn) -> None:
        """Ask for what is due, unless it was asked for just now or its turn has not come."""
        asked = self._asked.get(row.identity)
        if asked is not None and (asked.generation, asked.action) == (row.generation, verdict.action):
            if time.monotonic() < asked.until:
                return
            del self._asked[row.identity]
        if verdict.action is RespawnAction.LAUNCH and not self._its_turn(store, row):
            return
        action = "respawn" if verdict.action is RespawnAction.LAUNCH else "half-open"
        if self.options.dry_run:
            if self._reported.changed(action, row.identity, row.generation):
                self.find(row.identity, action, outcome="dry-run", evidence=verdict.reason)
            return
        try:
            reason = verdict.reason
            self.ask(action, name=row.identity, generation=row.generation, by=self.name, reason=reason)
        except Refused as refusal:
            if self._reported.changed("refused", row.identity, (row.generation, action, str(refusal))):
                self.trouble(row.identity, f"{action} was refused: {refusal}")
            return
        at, until = time.time(), time.monotonic() + AGAIN_SECS
        self._asked[row.identity] = Asked(row.generation, verdict.action, at, until)

    # -- mass deaths -----------------------------------------------------------------------------------

    def _its_turn(self, store: Reader, row: AgentRow) -> bool:
        """Say whether an agent may be relaunched now; every relaunch changes the answer for the next."""
        now = time.time()
        found = self._incident(store, now)
        pace = Pace(now, None) if found is None else incident.pace(found, row.identity, now)
        if pace.alert is not None:
            self._raise(pace.alert)
        if pace.at is not None and pace.at > now:
            self._due[row.identity] = pace.at
        return pace.at is not None and pace.at <= now

    def _incident(self, store: Reader, now: float) -> incident.Incident | None:
        """Return the mass death that is not over, from what the store says and what was asked for since."""
        since = now - LOOK_BACK_SECS
        if self._began is not None:
            since = min(since, self._began - incident.WINDOW_SECS)
        lives = {
            (launch.identity, launch.generation): life_of(launch) for launch in store.launches_since(since)
        }
        for identity, asked in self._asked.items():
            key = (identity, asked.generation + 1)
            if asked.action is RespawnAction.LAUNCH and key not in lives:
                lives[key] = Life(*key, asked.at, None, None, None, Cause.RESTART_POLICY, None)
        found = incident.find(list(lives.values()), now)
        if found is not None and self._began is None:
            self._tell(found, now)
        self._began = None if found is None else found.began
        return found

    def _mind_alert(self, found: incident.Incident | None) -> None:
        """Let go of the alert when somebody's launch has ended the stop."""
        if found is None or found.failures_in_a_row < incident.FAILURES:
            self._alert = None

    def _tell(self, found: incident.Incident, now: float) -> None:
        """Say once that many have died together; how they come back is said by each of them."""
        dead = f"{len(found.identities)} agents died together {max(0.0, now - found.began):.0f} s ago"
        evidence = f"{dead}: {', '.join(sorted(found.identities)[:NAMED])}; they come back one by one"
        self.find(
            "", "mass-death", outcome="paced", evidence=evidence, notice=NoticeKind.MASS_DEATH, key="died"
        )

    def _raise(self, alert: str) -> None:
        if self._alert is None:
            kind = NoticeKind.MASS_DEATH
            self.find("", "error", outcome="relaunches-stopped", evidence=alert, notice=kind, key="stopped")
        self._alert = alert

    # -- in time ---------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Look again at the moment the next agent's time comes; a tick may well be earlier."""
        if self._timer is not None:
            self.loop.remove_timeout(self._timer)
            self._timer = None
        if self._due:
            wait = max(0.0, min(self._due.values()) - time.time())
            self._timer = self.loop.call_later(wait, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, now = None, time.time()
        due = [identity for identity, at in self._due.items() if at <= now]
        if due:
            self.look_at(due)
        else:
            self._set_timer()  # the clock was set back meanwhile


def _ends(store: Reader, row: AgentRow, policy: AgentPolicy, work: Work) -> list[Ended]:
    """Return an agent's ends, the newest first; none are read where the policy asks for none."""
    tasks = policy.restart is Restart.ON_WORK and work.tasks > 0
    comes = policy.restart is Restart.ALWAYS or work.assignment is not None or tasks
    if row.phase != Phase.DOWN or not comes:
        return []
    return launch_ends.to_follow(store, row, ENDS_READ)


def life_of(launch: LaunchRow) -> Life:
    """Return a launch as the policy of mass deaths takes it."""
    return Life(
        identity=launch.identity,
        generation=launch.generation,
        started_at=launch.started_at,
        up_at=launch.up_at,
        ended_at=launch.ended_at,
        planned=launch.planned,
        cause=launch.cause,
        end_cause=launch.end_cause,
    )
