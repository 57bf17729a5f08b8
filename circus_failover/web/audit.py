"""audit.log: one line for everything that somebody asked for in the console, and for who was refused.

For people with grep, beside lifecycle.log and in the same form. It holds no token and no text of a task, and
is never a reason to fail an action. Strangers cannot fill it: what is refused takes a bounded part.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from circus_failover.lifecycle_log import LifecycleLog
from circus_failover.words import Role

MOST_REFUSALS = 30
"""Lines about requests that were refused, within a minute; the others are counted."""
_LONGEST = 300
_MOST_FIELDS = 20
_TAKEN = ("ts", "ev", "now")


class Audit:
    """The log; before its folder is known, nothing can be asked for, and nothing is written."""

    def __init__(self) -> None:
        self._log: LifecycleLog | None = None
        self._refusals: deque[float] = deque()
        self._left_out = 0

    def use(self, path: Path) -> None:
        """Write to this file from now on."""
        if self._log is None or self._log.path != path:
            self._log = LifecycleLog(path)

    @property
    def failed(self) -> int:
        """How many lines could not be written."""
        return self._log.failed if self._log is not None else 0

    def action(self, who: str, address: str, verb: str, outcome: str, /, **fields: object) -> None:
        """Write what somebody asked for, and what came of it."""
        self._write("web-action", {"who": who, "address": address, "verb": verb, "outcome": outcome}, fields)

    def signed_in(self, who: str, address: str, how: str, outcome: str) -> None:
        """Write that somebody signed in or out.

        Args:
            who: as circusd is told.
            address: of the client.
            how: `token` or `code`; what was used.
            outcome: `in` or `out`.
        """
        self._write("web-sign-in", {"who": who, "address": address, "by": how, "outcome": outcome}, {})

    def code_made(self, who: str, address: str, role: Role) -> None:
        """Write that somebody made a one-time code."""
        self._write(
            "web-sign-in", {"who": who, "address": address, "by": "code", "outcome": "made"}, {"for": role}
        )

    def refused(self, who: str | None, address: str, kind: str, /, **fields: object) -> None:
        """Write that a request was refused.

        Args:
            who: who is signed in; None: nobody.
            address: of the client.
            kind: why, in a word.
            fields: of the request.
        """
        now = time.monotonic()
        while self._refusals and now - self._refusals[0] > 60:
            self._refusals.popleft()
        if len(self._refusals) >= MOST_REFUSALS:
            self._left_out += 1
            return
        self._refusals.append(now)
        more = {"left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        self._write("web-refused", {"who": who, "address": address, "outcome": kind, **more}, fields)

    def _write(self, ev: str, own: dict[str, object], given: dict[str, object]) -> None:
        if self._log is None:
            return
        taken = {*own, *_TAKEN}
        others = [(key, value) for key, value in given.items() if key not in taken][:_MOST_FIELDS]
        shown = {key: _short(value) for key, value in (*own.items(), *others)}
        self._log.write(time.time(), ev, **shown)


def _short(value: object) -> object:
    if isinstance(value, (list, tuple)):
        value = ",".join(str(one) for one in value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
