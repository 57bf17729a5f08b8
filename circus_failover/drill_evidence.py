"""What a drill finds, and whether it is right: the record of the scratch server's end, and its snapshot.

It reads one snapshot; everything else is a function of values.
"""

from __future__ import annotations

import ast
import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circus_failover.canary import death
from circus_failover.canary.watched import Watched
from circus_failover.process_table import ProcessId
from circus_failover.words import Detected, ServerCause

AGENT = "drill"
"""The identity of who lives in the scratch server."""
EXPECTED = {
    signal.SIGKILL: (ServerCause.KILLED, ServerCause.OOM_LIKELY),
    signal.SIGTERM: (ServerCause.ORDERLY_UNINTENDED,),
    signal.SIGSEGV: (ServerCause.CRASHED,),
    signal.SIGABRT: (ServerCause.CRASHED,),
}
"""The causes a record may give by signal; the OOM killer's signal is the same as ours."""

_FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)')


def fields(line: str) -> dict[str, str]:
    """Return the values of a line of logfmt by their keys."""
    found = {}
    for key, value in _FIELD.findall(line):
        # What is quoted is escaped as Python does it.
        found[key] = str(ast.literal_eval(value)) if value.startswith('"') else value
    return found


def judge(
    number: signal.Signals, one: Watched, record: Mapping[str, str], status: Mapping[str, Any]
) -> list[str]:
    """Return what is wrong with the record of a server that was ended with a signal.

    Args:
        number: the signal.
        one: the server as it was on the list.
        record: the values of its record.
        status: what the canary says of itself.
    """
    wrong = []
    ended = {"status": "0"} if number == signal.SIGTERM else {"signal": str(int(number))}
    expected = {
        "ev": death.EV,
        "socket": one.socket,
        "server_pid": str(one.server.pid),
        "identity": AGENT,
        "agents": AGENT,
        "detected": str(Detected.LIVE),
        **ended,
    }
    for key, value in expected.items():
        if key in ended and record.get("status") == "unknown":
            why = status.get("why") or "it does not say why"
            wrong.append(f"how it ended was not learned: {why}")
        elif record.get(key) != value:
            wrong.append(f"{key} is {record.get(key) or 'missing'}, expected {value}")
    causes = [str(cause) for cause in EXPECTED[number]]
    if record.get("cause") not in causes and record.get("status") != "unknown":
        wrong.append(f"cause is {record.get('cause') or 'missing'}, expected {' or '.join(causes)}")
    return wrong


def figures(path: str, server: ProcessId) -> dict[str, Any]:
    """Return the main figures of a snapshot; what it does not tell is null.

    Args:
        path: where it is.
        server: whose it must be.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no snapshot, or another server's.
    """
    raw = Path(path).read_bytes()
    content = json.loads(raw)
    whose = (_in(content, "server", "pid"), _in(content, "server", "start"))
    if whose != tuple(server):
        raise ValueError(f"it is of the process {whose}, expected {tuple(server)}")
    return {
        "path": path,
        "bytes": len(raw),
        "agents": [_in(agent, "identity") for agent in _in(content, "agents") or ()],
        "processes": _in(content, "processes", "number"),
        "memory_available_kb": _in(content, "memory_kb", "MemAvailable"),
        "memory_total_kb": _in(content, "memory_kb", "MemTotal"),
        "swap_free_kb": _in(content, "swap_kb", "SwapFree"),
        "load": _in(content, "load", "averages"),
        "errors": [name for name in content if _in(content, name, "error")],
    }


def _in(content: Any, *path: str) -> Any:
    """Return what is at a path of keys; None where it leads nowhere: each section may have failed."""
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content
