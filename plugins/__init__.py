"""The Circus plugins of circus-failover, one file each; installed as `circus_failover.plugins`.

A plugin watches, decides and asks circusd over its endpoint; it never starts or ends an agent itself.
In circus.ini: `use = circus_failover.plugins.IdleReaper`.

Each runs in a process of its own, which imports the file of its own plugin only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circus_failover.plugins.account_failover import AccountFailover
    from circus_failover.plugins.agent_states import AgentStates
    from circus_failover.plugins.canary import Canary
    from circus_failover.plugins.crash_loop_guard import CrashLoopGuard
    from circus_failover.plugins.heartbeat import Heartbeat
    from circus_failover.plugins.idle_reaper import IdleReaper
    from circus_failover.plugins.metrics import Metrics
    from circus_failover.plugins.notify import Notify

__all__ = [
    "AccountFailover",
    "AgentStates",
    "Canary",
    "CrashLoopGuard",
    "Heartbeat",
    "IdleReaper",
    "Metrics",
    "Notify",
]

_FILES = {
    "AccountFailover": "account_failover",
    "AgentStates": "agent_states",
    "Canary": "canary",
    "CrashLoopGuard": "crash_loop_guard",
    "Heartbeat": "heartbeat",
    "IdleReaper": "idle_reaper",
    "Metrics": "metrics",
    "Notify": "notify",
}


def __getattr__(name: str) -> Any:
    """Import a plugin when it is asked for."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
