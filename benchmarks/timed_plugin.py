"""A plugin as Circus runs it, with a clock around every tick and a count of the programs it starts.

Run in a process of its own: `timed_plugin.py CLASS ENDPOINT PUBSUB_ENDPOINT TICKS`. It changes nothing but
wraps the tick. After so many ticks it ends and prints what it measured, as JSON: `cpu` and `clock`, a list of
seconds each, the first tick first; and `programs`, the names of the audit events by which Python tells
that another process was started.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

programs: list[str] = []
_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"})
INTERVAL_SECS = 0.5
"""Between two ticks: long enough for caches to cool somewhat, as they do in a plugin's real interval."""


def heard(event: str, details: tuple[Any, ...]) -> None:
    """Note every event by which this process starts another (PEP 578; the table in Python's audit_events)."""
    if event in _STARTS:
        programs.append(event)


def main(name: str, endpoint: str, pubsub_endpoint: str, ticks: int) -> int:
    """Run the plugin for so many ticks."""
    from circus_failover import plugins

    plugin = getattr(plugins, name)(endpoint, pubsub_endpoint, 1.0, interval=str(INTERVAL_SECS))
    one_tick, cpu, clock = plugin._one_tick, [], []

    async def timed(begun: float) -> None:
        used, began = time.process_time(), time.perf_counter()
        await one_tick(begun)
        clock.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
        if len(cpu) == ticks:
            plugin.stop()

    plugin._one_tick = timed
    plugin.start()
    print(json.dumps({"cpu": cpu, "clock": clock, "programs": programs}))
    return 0


if __name__ == "__main__":
    sys.addaudithook(heard)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
