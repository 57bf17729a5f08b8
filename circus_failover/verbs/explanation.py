"""What `explain` says beyond what an agent is: what a wake, the plugins and the queue would do next.

Collects what the policies decide by, asks them, and says it in lines. It runs inside circusd's only loop: it
changes nothing, and waits for nothing but one tmux call of 0.25 s, for an agent that looks idle.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover import idle_evidence, launch_ends, process_table, tmux
from circus_failover.doctor_plugins import GUARD, HEART, REAPER, late
from circus_failover.idle_evidence import Probed
from circus_failover.liveness import HOOK_TIMEOUT_SECS, Evidence
from circus_failover.observing import Observer
from circus_failover.plugin_input import agent_policy, parse_options
from circus_failover.policy import crash_loop, idle, respawn
from circus_failover.policy.bringup import BringUp, Verdict
from circus_failover.policy.idle import IdleAction, IdleSettings, Probe
from circus_failover.policy.respawn import RespawnAction
from circus_failover.process_table import ProbeFailed
from circus_failover.verbs import explained_account, explained_heartbeat, explained_work
from circus_failover.words import Asked, Cause, Detected, FaultKind, Liveness, Loop, Phase, WakeMode

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.records import PluginRow
    from circus_failover.supervisor import Supervisor
    from circus_failover.waking import WakePlan

UNKNOWN = "unknown"
"""What the idle reaper is said to make of an agent whose probe failed: no proof of anything."""


def outlook(arbiter: Any, held: Supervisor, agent: Agent) -> dict[str, Any]:
    """Return what would happen to an agent next, and why: the part of the answer that looks ahead.

    Args:
        arbiter: Circus's.
        held: its supervisor.
        agent: whose.

    Raises:
        StoreError: the store cannot be read.
    """
    evidence, verdict = held.bring_up.judge(agent, Asked.START)
    now, plugins = time.time(), held.store.plugins() if held.store is not None else {}
    return {
        "evidence": {"liveness": str(evidence.liveness), "reason": evidence.reason},
        **_coming_up(held, agent, evidence, verdict),
        "idle": _idle(arbiter, held, agent, plugins.get(REAPER), now),
        "crash_loop": _crash_loop(held, agent, now),
        "restart": _restart(arbiter, held, agent, plugins.get(GUARD), now),
        "heartbeat": explained_heartbeat.outlook(
            held,
            agent,
            _plugin(arbiter, HEART, plugins.get(HEART), now),
            _remembered(plugins.get(HEART)),
        ),
        "account": explained_account.outlook(
            held,
            agent,
            _plugin(arbiter, explained_account.FAILOVER, plugins.get(explained_account.FAILOVER), now),
        ),
        **explained_work.outlook(held, agent),
    }


# -- coming up ---------------------------------------------------------------------------------------


def _coming_up(held: Supervisor, agent: Agent, evidence: Evidence, verdict: Verdict) -> dict[str, Any]:
    """Return what a `start` and a `wake` would do; `verdict` is the gate's for a start.

    The gate says the same of both (policy.bringup): what they differ in is what refuses a wake before it, and
    what a start clears.
    """
    action, cause, reason = verdict.action, verdict.cause, verdict.reason
    if cause is Cause.GIVEN_UP:
        # The gate asks the crash loop last, and `start` clears one that was given up: nothing else is wrong.
        remains = evidence.liveness is Liveness.REMAINS
        action = BringUp.CLEAR_FIRST if remains else BringUp.LAUNCH
        cause, reason = Cause.OPERATOR_START, "clears the crash loop that was given up"
    plan = None
    if action in (BringUp.LAUNCH, BringUp.CLEAR_FIRST) and agent.settings is not None:
        plan = held.waking.plan(agent)
    start = {"action": str(action), "cause": cause and str(cause), "reason": reason}
    return {"start_would": {**start, "launch": _begins(plan)}, "wake": _wake(agent, verdict, plan)}


def _begins(plan: WakePlan | None) -> dict[str, str | None] | None:
    """Return how a launch would begin; a fresh one's conversation has no name yet."""
    if plan is None:
        return None
    return {
        "mode": str(plan.mode),
        "cause": str(plan.cause),
        "conversation": plan.conversation if plan.mode is WakeMode.RESUME else None,
        "parked_by": plan.parked_by,
        "topic": plan.topic,
    }


def _wake(agent: Agent, verdict: Verdict, plan: WakePlan | None) -> dict[str, Any]:
    """Return what a wake that asks for nothing by name would do, in the order in which `waking` refuses."""

    def said(mode: WakeMode | None, cause: Cause | None, reason: str) -> dict[str, Any]:
        answer = {"mode": mode and str(mode), "cause": cause and str(cause), "reason": reason}
        return {**answer, **dict.fromkeys(("conversation", "parked_by", "topic"))}

    if agent.observed:
        return said(WakeMode.REFUSED, Cause.OBSERVED, "it is observed: watched and shown, never started")
    if agent.row.stay_stopped:
        reason = f"it was stopped; `start {agent.identity}` brings it back"
        return said(WakeMode.REFUSED, Cause.STOPPED, reason)
    if agent.action is not None:
        return said(None, None, f"its end is under way ({agent.action.intent}): a wake waits for it")
    if agent.phase is Phase.STARTING:
        return said(None, None, "a launch is under way: a wake waits for it")
    if agent.phase is Phase.UP:
        return said(WakeMode.REFUSED, Cause.ALREADY_LIVE, "it is up")
    if verdict.action is BringUp.REFUSE:
        return said(WakeMode.REFUSED, verdict.cause, verdict.reason)
    begins = _begins(plan)
    if begins is None:
        return said(None, verdict.cause, verdict.reason)
    return {**begins, "reason": verdict.reason or None}


# -- what the plugins would do -----------------------------------------------------------------------


def _plugin(arbiter: Any, name: str, row: PluginRow | None, now: float) -> dict[str, Any]:
    """Return whether a plugin of ours runs, when it last ticked, and whether it is a dry run."""
    watchers = [
        watcher
        for watcher in arbiter.watchers
        if watcher.name.startswith("plugin:") and str(watcher.cmd).rpartition(".")[2] == name
    ]
    ticked = row is not None and not late(row.at, row.interval, now)
    dry = [parse_options(watcher._options, 1.0)[0].dry_run for watcher in watchers]
    return {
        "runs": ticked and any(not watcher.is_stopped() for watcher in watchers),
        "last_tick": row.at if row is not None else None,
        "dry_run": bool(dry) and all(dry),
    }


def _remembered(row: PluginRow | None) -> dict[str, Any]:
    """Return what a plugin wants to know again; nothing when that cannot be read."""
    try:
        detail = json.loads(row.detail) if row is not None else {}
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


def _idle(arbiter: Any, held: Supervisor, agent: Agent, row: PluginRow | None, now: float) -> dict[str, Any]:
    """Return what the idle reaper would make of an agent, by its own policy and what it has seen so far."""
    reaper = _plugin(arbiter, REAPER, row, now)
    policy, detail = agent_policy(agent.row.policy), _remembered(row)
    if policy is None:
        answer = {"action": str(IdleAction.LEAVE), "reason": "its settings cannot be used", "idle": None}
        return {**answer, "idle_secs": None, "max_age_secs": None, "evidence": None, "reaper": reaper}
    if detail.get("boot") != process_table.boot_id():
        detail = {}
    process = agent.row.process if agent.row.boot == process_table.boot_id() else None
    evidence = idle.Evidence(
        phase=agent.phase,
        observed=agent.observed,
        state=agent.health().state,
        ready_at=agent.row.ready_at,
        last_activity=idle_evidence.Terminals().last_activity(process, now) if process else None,
        last_task=agent.row.last_task,
        last_attached=_last_attached(detail, agent),
        tasks_waiting=len(held.deliveries.waiting(agent)),
        assignment=_assigned(held, agent),
        probe=None,
    )
    settings, floor = IdleSettings(policy.idle_secs, policy.max_age_secs), _seconds(detail.get("floor"))
    verdict = idle.decide(settings, evidence, floor, now)
    if verdict.action is IdleAction.PROBE:
        found = _probe(agent, now)
        attached = [at for at in (evidence.last_attached, found.last_attached) if at is not None]
        evidence = replace(evidence, probe=found.probe, last_attached=max(attached, default=None))
        verdict = idle.decide(settings, evidence, floor, now)
    probe = evidence.probe
    return {
        "action": UNKNOWN if probe is not None and probe.failed else str(verdict.action),
        "reason": verdict.reason,
        "idle": verdict.age,
        "idle_secs": policy.idle_secs,
        "max_age_secs": policy.max_age_secs,
        "evidence": {
            "last_activity": evidence.last_activity,
            "last_task": evidence.last_task,
            "ready_at": evidence.ready_at,
            "last_attached": evidence.last_attached,
            "clock_jumped": floor,
            "tasks_waiting": evidence.tasks_waiting,
            "attached": probe.attached if probe is not None else None,
            "tool_children": probe.tool_children if probe is not None else None,
            "state": str(probe.state) if probe is not None and probe.state is not None else None,
            "client_activity": probe.last_activity if probe is not None else None,
        },
        "reaper": reaper,
    }


def _last_attached(detail: dict[str, Any], agent: Agent) -> float | None:
    """Return when the reaper last saw a client of this very launch."""
    try:
        generation, at, here = detail["seen"][agent.identity]
    except (KeyError, TypeError, ValueError):
        return None
    return _seconds(at) if generation == agent.row.generation and not here else None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _probe(agent: Agent, now: float) -> Probed:
    """Look for clients and tools of one agent, with a tmux call as short as circusd's loop can bear."""
    row = agent.row
    if agent.wedged:
        return Probed(Probe(None, None, "its tmux server does not answer"), None)
    try:
        if row.socket is None or row.session is None:
            raise ProbeFailed("where its session is was not recorded")
        seen = idle_evidence.clients(Path(row.socket), row.session, HOOK_TIMEOUT_SECS)
        probe = Probe(seen.attached, idle_evidence.look().tools(row))
        observer, told = Observer(), agent.seen
        if not observer.tells(row):
            return Probed(probe, seen.last_attached)
        if told is not None and agent.health() is told.health:
            probe = idle_evidence.with_health(probe, told.health, told.last_activity)
        else:
            # Nobody looks at it but the reaper; its terminal would be a second call of tmux.
            health, observed = observer.observe(row, now, screen=False)
            probe = idle_evidence.with_health(probe, health, observed.last_activity)
        return Probed(probe, seen.last_attached)
    except (tmux.TmuxError, ProbeFailed, OSError, ValueError) as error:
        return Probed(Probe(None, None, str(error) or type(error).__name__), None)


def _crash_loop(held: Supervisor, agent: Agent, now: float) -> dict[str, Any]:
    """Return what the crash-loop guard holds an agent to, and what it counts."""
    from circus_failover.crash_loops import settings_of, state_of

    settings, state = settings_of(agent.settings), state_of(agent.row)
    return {
        "state": str(state.loop),
        "deaths": len(crash_loop.counted(settings, held.crash_loops.ends(agent), now)),
        "crash_max": settings.crash_max,
        "window_secs": settings.crash_window_secs,
        "until": state.until if state.loop is Loop.OPEN else None,
        "failures": state.failures,
        "trials": crash_loop.TRIALS,
        "given_up": state.loop is Loop.GIVEN_UP,
    }


def _restart(
    arbiter: Any, held: Supervisor, agent: Agent, row: PluginRow | None, now: float
) -> dict[str, Any]:
    """Return what the guard's next tick would do about an agent; `at` is when, in epoch seconds."""
    from circus_failover.crash_loops import state_of

    detail, policy = _remembered(row), agent_policy(agent.row.policy)
    plugin = {"guard": _plugin(arbiter, GUARD, row, now)}
    plugin["guard"].update(alert=detail.get("alert"), incident=_seconds(detail.get("incident")))
    if policy is None:
        reason = "its settings cannot be used"
        return {"policy": None, "action": str(RespawnAction.LEAVE), "at": None, "reason": reason, **plugin}
    fallen = respawn.Fallen(
        identity=agent.identity,
        generation=agent.row.generation,
        phase=agent.phase,
        stay_stopped=agent.row.stay_stopped,
        observed=agent.observed,
        restart=policy.restart,
        loop=state_of(agent.row),
        work=len(held.deliveries.waiting(agent)),
        ended=launch_ends.to_follow(held.store, agent.row) if held.store is not None else [],
        stable_secs=policy.stable_secs,
        assigned=_assigned(held, agent),
    )
    verdict = respawn.decide(fallen, now)
    answer = {"action": str(verdict.action), "at": verdict.at, "reason": verdict.reason}
    return {"policy": str(policy.restart), **answer, **plugin}


def _assigned(held: Supervisor, agent: Agent) -> bool:
    """Say whether an agent has an assignment, or one waits for it by name, as the plugins see it."""
    return held.store is not None and agent.identity in held.store.assigned()


# -- for people --------------------------------------------------------------------------------------


def facts(msg: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of an answer of `explain`, as a name and a sentence."""
    if msg["server_exit"] is not None:
        yield "its server", _server_line(msg["server_exit"])
    yield "start would", _start_line(msg["start_would"], msg["wake"])
    if msg["wake"]["cause"] != str(Cause.ALREADY_LIVE):
        yield "wake would", _wake_line(msg["wake"], msg["start_would"]["reason"])
    phase = msg["agent"]["phase"]
    yield from _state_facts(msg["agent"])
    yield from explained_work.facts(msg["work"])
    if phase == str(Phase.UP):
        yield "idle reaper", _idle_line(msg["idle"])
    if msg["heartbeat"] is not None:
        yield "heartbeat", explained_heartbeat.line(msg["heartbeat"])
    yield "crash loop", _loop_line(msg["crash_loop"], msg["agent"]["identity"])
    if phase in (str(Phase.DOWN), str(Phase.HELD)):
        yield "restart", _restart_line(msg["restart"], phase)


def _state_facts(agent: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield by what its state is known and since when, and what its last turn failed at."""
    from circus_failover import screen

    if agent["state_evidence"]:
        since = f", {screen.ago(agent['state_at'])} ago" if agent["state_at"] is not None else ""
        yield "evidence", f"{agent['state_evidence']}{since}"
    fault = agent["fault"]
    if fault is None:
        return
    facts = [f"{fault['kind']} ({fault['window']})" if fault["window"] else fault["kind"]]
    if fault["kind"] == str(FaultKind.USAGE_LIMIT):
        known = fault["resets_at"] is not None
        facts.append(f"until {screen.local_time(fault['resets_at'])}" if known else "reset time unknown")
        facts += ["of one model only"] if fault["model_only"] else []
    facts += ["it tries again by itself"] if fault["retrying"] else []
    yield "fault", ", ".join(facts) + (f": {fault['text']}" if fault["text"] else "")


def _server_line(found: dict[str, Any]) -> str:
    """Return how the tmux server of an agent ended that nobody meant to end."""
    line = f"{found['cause']} ({found['evidence']})" if found["evidence"] else str(found["cause"])
    line += ", seen as it ended" if found["detected"] == str(Detected.LIVE) else ", found gone later"
    return f"{line}; snapshot: {found['forensics']}" if found["forensics"] else line


def _start_line(start: dict[str, Any], wake: dict[str, Any]) -> str:
    line = f"{start['action']} ({start['reason']})" if start["reason"] else str(start["action"])
    # How it begins is said once: of the wake, unless that is refused.
    if start["launch"] and wake["mode"] == str(WakeMode.REFUSED):
        line += f": {_beginning(start['launch'])}"
    return line


def _wake_line(wake: dict[str, Any], said: str) -> str:
    """`said` is the reason that the line above has given already."""
    reason = f": {wake['reason']}" if wake["reason"] and wake["reason"] != said else ""
    if wake["mode"] is None:
        return f"{'adopt' if wake['cause'] else 'launch nothing'}{reason}"
    if wake["mode"] == str(WakeMode.REFUSED):
        return f"be refused ({wake['cause']}){reason}"
    return f"{_beginning(wake)}{reason}"


def _beginning(launch: dict[str, Any]) -> str:
    what = f"resume {launch['conversation']}" if launch["conversation"] else "begin fresh"
    because = launch["cause"]
    if launch["parked_by"]:
        because += f", parked by {launch['parked_by']}"
    if launch["topic"]:
        because += f", topic {launch['topic']}"
    return f"{what} ({because})"


def _idle_line(found: dict[str, Any]) -> str:
    action, reaper, reason = found["action"], found["reaper"], found["reason"]
    if action == str(IdleAction.LEAVE):
        return f"never parks it: {reason}"
    if not reaper["runs"]:
        return "does not run: no agent is parked for being idle"
    if action == str(IdleAction.PARK):
        return f"{'would park it, but for dry_run' if reaper['dry_run'] else 'parks it next'}: {reason}"
    return f"{'unknown, so it ' if action == UNKNOWN else ''}leaves it alone: {reason}"


def _loop_line(loop: dict[str, Any], identity: str) -> str:
    from circus_failover import screen

    deaths = f"{loop['deaths']} of {loop['crash_max']} deaths in {screen.duration(loop['window_secs'])}"
    trials = f"failed trials: {loop['failures']} of {loop['trials']}"
    if loop["state"] == str(Loop.CLOSED):
        return deaths if loop["deaths"] else ""
    if loop["state"] == str(Loop.OPEN):
        over = loop["until"] is None or loop["until"] <= time.time()
        until = "held, and its time has come" if over else f"held until {screen.local_time(loop['until'])}"
        return f"{until}; {deaths}, {trials}"
    if loop["state"] == str(Loop.HALF_OPEN):
        return f"one launch is on trial; {trials}"
    return f"given up; {trials}: `reset {identity}` or `start {identity}`"


def _restart_line(restart: dict[str, Any], phase: str) -> str:
    from circus_failover import screen

    guard, reason = restart["guard"], restart["reason"]
    if restart["action"] == "leave":
        return f"stays {phase}: {reason}"
    due = restart["at"] is None or restart["at"] <= time.time()
    when = "now" if due else f"at {screen.local_time(restart['at'])}"
    line = f"{restart['action']} {when} ({reason})"
    if not guard["runs"]:
        return f"{line}, if there were a CrashLoopGuard: none runs, so it stays {phase}"
    if guard["alert"]:
        return f"stays {phase}: {guard['alert']}"
    if guard["incident"]:
        line += "; many died together, so they come back one after another"
    return f"{line}; dry run: nothing is done" if guard["dry_run"] else line


def launch_line(launch: dict[str, Any]) -> str:
    """Return one launch as a line: how it began, why, for whom, and how it ended."""
    from circus_failover import screen

    text = f"launch {launch['generation']}: "
    if launch["mode"]:
        parked = f", parked by {launch['parked_by']}" if launch["parked_by"] else ""
        text += f"{launch['mode']} ({launch['wake_cause']}{parked}), "
    text += f"{launch['cause']} by {launch['asked_by']}, {screen.ago(launch['started_at'])} ago"
    if launch["ended_at"] is None:
        return text
    kind = "planned" if launch["planned"] else "unplanned"
    text += f"; ended {screen.ago(launch['ended_at'])} ago, {kind}: {launch['end_cause']}"
    if launch["exit_signal"] is not None:
        text += f", signal {launch['exit_signal']}"
    elif launch["exit_status"] is not None:
        text += f", exit status {launch['exit_status']}"
    return text
