"""Named places at which a test lets this process die, as a power cut or the OOM killer would.

`FAILOVER_CRASH_AT=NAME` kills the process with SIGKILL the first time it reaches that place. The
places are the seams of every path that ends a process or types a task; tests/live kills supervisor and
workers at each.
"""

from __future__ import annotations

import os
import signal


def reached(name: str) -> None:
    """Die here when the environment names this place; otherwise do nothing."""
    if os.environ.get("FAILOVER_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
