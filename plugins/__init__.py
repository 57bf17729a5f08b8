"""The Circus plugins of circus-failover, one file each; installed as `circus_failover.plugins`.

A plugin watches, decides and asks circusd over its endpoint; it never starts or ends an agent itself.
In circus.ini: `use = circus_failover.plugins.IdleReaper`.
"""

from circus_failover.plugins.agent_states import AgentStates
from circus_failover.plugins.canary import Canary
from circus_failover.plugins.crash_loop_guard import CrashLoopGuard
from circus_failover.plugins.heartbeat import Heartbeat
from circus_failover.plugins.idle_reaper import IdleReaper
from circus_failover.plugins.metrics import Metrics
from circus_failover.plugins.notify import Notify

__all__ = ["AgentStates", "Canary", "CrashLoopGuard", "Heartbeat", "IdleReaper", "Metrics", "Notify"]
