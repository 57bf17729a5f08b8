"""failover-worker: one short-lived process that carries out one order of circusd's.

circusd starts it with a file that says all it needs. This module takes the lock that the order names, bounds
the work with an alarm, has the module of its kind carry it out, and reports through the spool, so that the
report survives circusd. It knows nothing of what is done: that is `ending_work` (`end`), `typing_work`
(`type`) and `boot_work` (`boot`).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from circus_failover import crashpoint, file_lock, spool


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


KINDS = {"end": "ending_work", "type": "typing_work", "boot": "boot_work"}
"""The module of each kind. Only that of the order is imported: workers start by the hundred."""
LOCK_SECS = 3.0
"""How long an end waits for the typist that was told to stop: it does so within a second."""


def main() -> int:
    """Carry out the order in the file named by the only argument; one without a kind is an end.

    Returns:
        0 done and reported, 75 another worker is at it (EX_TEMPFAIL), 70 it failed and said so, or it ended
        without a report because it could not tell: circusd starts it again.
    """
    raw = json.loads(Path(sys.argv[1]).read_bytes())
    kind = raw.get("kind", "end")
    work: Work = import_module(f"circus_failover.{KINDS[kind]}").Order.load(raw)
    if work.lock is not None and not _locked(work.lock, LOCK_SECS if kind == "end" else 0.0):
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


def _locked(path: Path, secs: float) -> bool:
    """Take a lock for the rest of this process; False when somebody else holds it for `secs` seconds."""
    until = time.monotonic() + secs
    while file_lock.take(path) is None:
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    sys.exit(main())
