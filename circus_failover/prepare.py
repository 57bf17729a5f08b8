"""Run one shell command before a launch, for a bounded time, in the agent's own pane.

Runs as `python -m circus_failover.prepare SECONDS COMMAND`. Exit 0 when the command did; otherwise
one line says what happened, and the launch does not go on. The command's process group ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

GROUP_END_SECS = 2.0
"""A killed process is gone within milliseconds, unless the kernel holds it."""


def main() -> int:
    """Return the exit status: 0, the command's own, or 124 when it ran out of time."""
    seconds, command = float(sys.argv[1]), sys.argv[2]
    # A group of its own, so that what it started ends with it; not a session, so that the terminal's
    # hangup still reaches it.
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, preexec_fn=lambda: os.setpgid(0, 0)
    )
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        # Whatever it left in the background ends too: the group lives as long as one member does.
        _end_group(process)
    if status is None:
        process.wait()
        print(f"failover.prepare did not end within {seconds:g} s and was ended: {command}", file=sys.stderr)
        return 124
    if status != 0:
        print(f"failover.prepare ended with {status}: {command}", file=sys.stderr)
        return 1
    return 0


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the command's process group, and wait until it is gone."""
    until = time.monotonic() + GROUP_END_SECS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
