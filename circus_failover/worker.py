"""failover-worker: one short-lived process that carries out one order of circusd's.

circusd starts it with a file that says all it needs. This module takes the lock that the order names, bounds
the work with an alarm, has the module of its kind carry it out, and reports through the spool, so that the
report survives circusd. It knows nothing of what is done: that is `ending_work` (`end`), `typing_work`
(`type`) and `boot_work` (`boot`).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from circus_failover import boot_work, crashpoint, ending_work, spool, typing_work


class Work(Protocol):
    """What an order of any kind is to its worker."""

    @property
    def lock(self) -> Path | None:
        """The file that keeps two workers from acting on the same thing; None when nothing has to."""

    @property
    def spool(self) -> Path:
        """The folder that the report goes to."""

    @property
    def alarm_secs(self) -> int:
        """After so many seconds the worker is killed; circusd starts another."""

    def carry_out(self) -> dict[str, Any] | None:
        """Do the work and return the report, or None when it cannot be told yet how it ended."""


KINDS: dict[str, Callable[[Mapping[str, Any]], Work]] = {
    "end": ending_work.Order.load,
    "type": typing_work.Order.load,
    "boot": boot_work.Order.load,
}


def main() -> int:
    """Carry out the order in the file named by the only argument; one without a kind is an end.

    Returns:
        0 done and reported, 75 another worker is at it (EX_TEMPFAIL), 70 it failed and said so, or it ended
        without a report because it could not tell: circusd starts it again.
    """
    raw = json.loads(Path(sys.argv[1]).read_bytes())
    work = KINDS[raw.get("kind", "end")](raw)
    if work.lock is not None:
        # Never closed: the lock is held until this process is gone.
        handle = os.open(work.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 75
    # One that hangs would hold the lock for ever; killed by this, the next tick starts another.
    signal.alarm(work.alarm_secs)
    report = work.carry_out()
    if report is None:
        return 70
    report["at"] = time.time()
    crashpoint.reached("worker-before-report")
    spool.send(work.spool, report)
    return 0 if report["outcome"] != "failed" else 70


if __name__ == "__main__":
    sys.exit(main())
