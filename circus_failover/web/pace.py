"""How soon circusd may be asked again on account of what was heard: bursts at once, floods at a bounded cost.

Pure: it is told how long readings took and what time it is.
"""

from __future__ import annotations

from collections import deque

SHARE = 0.1
"""How much of circusd's time one kind of reading may take for as long as a flood lasts."""
BURST_SECS = 2.0
"""How much may be owed before a reading is put off: readings of a fifth of a second in all are free."""
LONGEST_REST_SECS = 2.0
"""How long a reading is put off at most, however long the ones before took."""
_LATE = 20
"""How many readings say how fast circusd is: one of them hardly ever waited for anything else."""


class Pace:
    """The account of one kind of reading: each one owes circusd its cost many times over in peace.

    What a reading costs circusd is not how long it took: most of that may be waiting for what circusd does
    meanwhile, as starting agents. It is what one of its size takes at the best of late.
    """

    def __init__(self) -> None:
        self._even_at = 0.0
        self._each: deque[float] = deque(maxlen=_LATE)

    def spent(self, secs: float, size: int, now: float) -> None:
        """Note that a reading has just ended.

        Args:
            secs: how long it took.
            size: how much was read, in any unit; more than 0.
            now: in seconds of any steady clock.
        """
        self._each.append(secs / size)
        owed = max(self._even_at, now) + min(self._each) * size / SHARE
        self._even_at = min(owed, now + BURST_SECS + LONGEST_REST_SECS)

    def rest(self, now: float) -> float:
        """Return in how many seconds the next reading may begin."""
        return max(0.0, self._even_at - BURST_SECS - now)
