"""An agent says that it gets on: it touches the file that `FAILOVER_HEARTBEAT` names.

That is all there is to a heartbeat, and it needs no circusd. An agent may do it every few seconds: this
imports nothing that its Python has not, and `touch "$FAILOVER_HEARTBEAT"` does the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


class NoHeartbeat(Exception):
    """The file cannot be touched; the text says why."""


def touch(environment: Mapping[str, str]) -> str:
    """Touch the heartbeat file of the agent that runs this, and return its path.

    Args:
        environment: the variables its launch was given.

    Raises:
        NoHeartbeat: there is none, or it cannot be touched.
    """
    path, state = environment.get("FAILOVER_HEARTBEAT", ""), environment.get("FAILOVER_STATE_DIR", "")
    if not path:
        raise NoHeartbeat(
            "self beat works inside an agent that has a heartbeat: FAILOVER_HEARTBEAT is not set here "
            "(failover.heartbeat in the agent's section)"
        )
    if not os.path.isabs(path):
        raise NoHeartbeat(f"FAILOVER_HEARTBEAT is {path!r}: expected an absolute path")
    try:
        folder = os.path.dirname(path)
        if state and os.path.dirname(folder) == state.rstrip("/"):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        # Without O_NONBLOCK a FIFO would keep the agent waiting for a reader (open(2)).
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            os.utime(handle)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        raise NoHeartbeat(f"the heartbeat {path!r} cannot be touched: {error}") from None
    return path
