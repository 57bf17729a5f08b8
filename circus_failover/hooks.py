"""The hooks that Circus calls inside circusd: the gate. One line in circus.ini enrols an agent:

    hooks.before_start = circus_failover.hooks.enrol

Importing this module in circusd takes the state directory's lock before circusd binds its endpoint, and
registers the verbs. The hooks return at once: they decide, record and refuse; nothing in them waits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from circus import logger
from circus.arbiter import Arbiter

from circus_failover import claims, verbs
from circus_failover.bring_up import Refused
from circus_failover.policy.bringup import BringUp, Hindrance, Verdict
from circus_failover.supervisor import Supervisor
from circus_failover.words import Asked, Cause

Hook = Callable[..., Any]
LATE_SECS = 0.1
_current: Supervisor | None = None


def supervisor(arbiter: Any) -> Supervisor:
    """Return the supervisor of an arbiter, opened; a restarted circusd has a new arbiter, so a new one."""
    global _current
    if _current is None or _current.arbiter is not arbiter:
        verbs.offer(arbiter)
        if _current is not None:
            _current.close()
        claims.scrub_environment()
        _current = Supervisor(arbiter)
        try:
            _current.open()
        except Exception as error:
            logger.exception("circus-failover: the supervisor could not be opened; every launch is refused")
            _current.hindrance = Hindrance(Cause.GATE_FAILED, f"{type(error).__name__}: {error}")
        remember_plugins(arbiter)
    return _current


def remember_plugins(arbiter: Any) -> None:
    """See to it that the plugins that are spawned from now on are remembered."""
    for watcher in arbiter.watchers:
        if str(watcher.name).startswith("plugin:"):
            _chain(watcher, "after_spawn", plugin_spawned)
            for pid in watcher.processes:
                supervisor(arbiter).remember_child(pid, "plugin", watcher.name)


def enrol(watcher: Any, arbiter: Any, hook_name: str, **details: Any) -> bool:
    """`before_start`: enrol the watcher as an agent, and decide what its start means.

    Raises:
        Refused: a launch was wanted and is refused; Circus publishes the reason as `hook_failure`.
    """
    # `hooks.before_start = ...,true` would let a start through when this raises (Circus 0.19).
    while hook_name in watcher.ignore_hook_failure:
        watcher.ignore_hook_failure.remove(hook_name)
    held = supervisor(arbiter)
    if getattr(watcher, "failover_removed", False):
        return False
    held.open_state(watcher)
    agent = held.roster.enrol(watcher)
    try:
        return held.bring_up.before_start(agent)
    except Refused:
        raise
    except Exception as error:
        logger.exception("circus-failover: the gate failed for %s", watcher.name)
        reason = f"the gate itself failed: {type(error).__name__}: {error}"
        asked = agent.ticket.asked if agent.ticket is not None else Asked.RESTORE
        held.bring_up.refuse(agent, Verdict(BringUp.REFUSE, Cause.GATE_FAILED, reason), asked)
        return False


def before_spawn(watcher: Any, arbiter: Any, hook_name: str, **details: Any) -> bool:
    """At every spawn of a keeper: adopt what lives; when the agent is dead, nothing is spawned."""
    held = supervisor(arbiter)
    agent = held.roster.agents.get(watcher.name)
    return agent is not None and held.bring_up.before_spawn(agent)


def after_spawn(watcher: Any, arbiter: Any, hook_name: str, pid: int = 0, **details: Any) -> bool:
    """Remember the keeper, so that a successor of this circusd can end it."""
    supervisor(arbiter).remember_child(pid, "keeper", watcher.name)
    return True


def plugin_spawned(watcher: Any, arbiter: Any, hook_name: str, pid: int = 0, **details: Any) -> bool:
    """Remember a plugin: it would drive the next circusd beside its successor."""
    supervisor(arbiter).remember_child(pid, "plugin", watcher.name)
    return True


def before_stop(watcher: Any, arbiter: Any, hook_name: str, **details: Any) -> bool:
    """Circus stops the watcher: the keeper ends, the agent lives on. Only a verb of ours ends an agent."""
    held = supervisor(arbiter)
    agent = held.roster.agents.get(watcher.name)
    if agent is not None and agent.action is None and held.log is not None and not arbiter._stopping:
        logger.debug("circus-failover: %s is detached (%s)", watcher.name, arbiter._exclusive_running_command)
    return True


def extended_stats(
    watcher: Any, arbiter: Any, hook_name: str, pid: int = 0, stats: Any = None, **details: Any
) -> bool:
    """`circusctl stats --extended`: the agent's process tree in place of its keeper's."""
    from circus_failover import stats as statistics

    agent = supervisor(arbiter).roster.agents.get(watcher.name)
    if agent is not None and agent.row.process is not None and isinstance(stats, dict):
        statistics.replace_with_tree(stats, agent.row.process)
    return True


_HOOKS: dict[str, Hook] = {
    "before_spawn": before_spawn,
    "after_spawn": after_spawn,
    "before_stop": before_stop,
    "extended_stats": extended_stats,
}


def register(watcher: Any) -> None:
    """Put our other hooks on an agent's watcher, behind those its section names."""
    for name, hook in _HOOKS.items():
        _chain(watcher, name, hook)
    # Without our before_spawn nothing may be spawned, so it must not fail open either.
    while "before_spawn" in watcher.ignore_hook_failure:
        watcher.ignore_hook_failure.remove("before_spawn")


def _chain(watcher: Any, name: str, hook: Hook) -> None:
    """Let a hook run after the one that is there, if any; once."""
    there = watcher.hooks.get(name)
    if there is hook or getattr(there, "ours", None) is hook:
        return
    if there is None:
        watcher.hooks[name] = hook
        return

    @wraps(there)
    def both(*args: Any, **details: Any) -> Any:
        return there(*args, **details) and hook(*args, **details)

    both.ours = hook  # type: ignore[attr-defined]
    watcher.hooks[name] = both


def _attach_at_start() -> None:
    """Open the supervisor when an arbiter initialises, before any watcher starts.

    Circus calls no hook of a watcher that it does not start (`autostart = False`), and offers no other
    moment; so `Arbiter.initialize` is wrapped.
    """
    original = Arbiter.initialize
    if getattr(original, "failover", False):
        return

    @wraps(original)
    def initialize(self: Any, *args: Any, **kw: Any) -> Any:
        result = original(self, *args, **kw)
        from circus_failover.roster import is_agent

        if any(is_agent(watcher) for watcher in self.watchers):
            supervisor(self)
        return result

    initialize.failover = True  # type: ignore[attr-defined]
    Arbiter.initialize = initialize


def _attach_late(arbiter: Any) -> None:
    """Serve an arbiter that runs already: reloadconfig brought it its first agent, and with it this module.

    Circus calls no hook of an agent with `autostart = False`, so this waits for the reload to end.
    """
    if arbiter._exclusive_running_command is not None:
        arbiter.loop.call_later(LATE_SECS, _attach_late, arbiter)
        return
    held = supervisor(arbiter)
    held.open_state()
    held.roster.enrol_new()


claims.claim_before_bind()
_attach_at_start()
_running = claims.arbiter_of_this_process()
if _running is not None:
    _running.loop.call_later(LATE_SECS, _attach_late, _running)
