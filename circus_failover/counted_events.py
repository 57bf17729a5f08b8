"""What has happened in a fleet, as totals: launches, wakes, deaths, tasks and assignments since the first.

It follows the store's history by the ids of its rows, so that each decision counts once, and what it has
counted outlives its process and the rows themselves (`purge`). It reads and adds up; it decides nothing.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circus_failover.store import Reader
from circus_failover.words import IntentAction

AT_ONCE = 5000
"""So many decisions are read at a time (40 ms); a long history is caught up with by and by."""
SETTLE_SECS = 10.0
"""After so long it is known how a launch ended that ended by itself, where it can be known."""
PENDING = 10_000
"""So many launches and deaths are remembered until the rest of them is known."""
LATENESS_SECS = (2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
BOOT_SECS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

LABELS: dict[str, tuple[str, ...]] = {
    "launches": ("cause",),
    "wakes": ("mode", "cause"),
    "refusals": ("cause",),
    "deaths": ("cause", "assignment"),
    "ends": ("intent", "outcome"),
    "task_events": ("kind", "action"),
    "assignment_events": ("action",),
    "notices": ("kind",),
}
"""The totals, and what each is told apart by."""
_FIELDS = {
    "launch": ("launches", ("cause",)),
    "wake": ("wakes", ("mode", "cause")),
    "refuse": ("refusals", ("cause",)),
    "stopped": ("ends", ("intent", "outcome")),
    "task": ("task_events", ("kind", "action")),
    "work": ("assignment_events", ("action",)),
}
"""Which decision counts as what, and which of its keys are the labels."""
_EVENTS = (*_FIELDS, "exit", "up")


@dataclass
class Spread:
    """How long something took, each time, by upper bounds in seconds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    """One for each bound, not cumulative, and one for what took longer."""
    total: float = 0.0

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1:
            self.counts = [0] * (len(self.bounds) + 1)

    def add(self, secs: float) -> None:
        """Take in one; a clock that was set back makes it 0."""
        secs = max(0.0, secs)
        self.counts[bisect.bisect_left(self.bounds, secs)] += 1
        self.total += secs


class CountedEvents:
    """The totals of one store, as far as it was read."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.lateness = Spread(LATENESS_SECS)
        """How long deaths had gone unnoticed."""
        self.boots = Spread(BOOT_SECS)
        """How long launches took until they were up."""
        self._decision = self._notice = 0
        self._deaths: dict[tuple[str, int], float] = {}
        """Deaths whose cause may not be known yet: when each was noticed."""
        self._launches: dict[tuple[str, int], float] = {}
        """Launches that are not up yet: when each began."""

    def follow(self, store: Reader, now: float) -> bool:
        """Count what has happened since the last time.

        Args:
            store: the store.
            now: epoch seconds.

        Returns:
            Whether there may be more.

        Raises:
            StoreError: it cannot be read; what was not read is counted the next time.
        """
        # A purge may have deleted the newest rows, whose ids are given again.
        self._decision = min(self._decision, store.newest_decision())
        self._notice = min(self._notice, store.newest_notice())
        rows = store.happened(self._decision, _EVENTS, AT_ONCE)
        for row in rows:
            self._decided(row)
            self._decision = row["id"]
        notices = store.notices(self._notice, AT_ONCE)
        for notice in notices:
            self.totals["notices", (notice.kind,)] += 1
            self._notice = notice.id
        for key in [key for key, noticed in self._deaths.items() if now - noticed >= SETTLE_SECS]:
            self._died(store, key, self._deaths.pop(key))
        return AT_ONCE in (len(rows), len(notices))

    def _decided(self, row: Mapping[str, Any]) -> None:
        ev, detail = row["ev"], row["detail"]
        launch = str(row["identity"]), int(row["generation"] or 0)
        if ev in _FIELDS:
            name, keys = _FIELDS[ev]
            self.totals[name, tuple(str(detail.get(key) or _DEFAULTS.get(key, "")) for key in keys)] += 1
        if ev == "launch":
            _remember(self._launches, launch, row["at"])
        elif ev == "up" and launch in self._launches:
            self.boots.add(row["at"] - self._launches.pop(launch))
        elif ev == "exit" or (ev == "stopped" and detail.get("intent") == IntentAction.STUCK):
            self._launches.pop(launch, None)
            _remember(self._deaths, launch, row["at"])

    def _died(self, store: Reader, key: tuple[str, int], noticed: float) -> None:
        identity, generation = key
        ended = {row.generation: row for row in store.ended_launches(identity, generation - 1)}
        row = ended.get(generation)
        if row is None or row.planned:
            return
        with_work = "yes" if row.assignment else "no"
        self.totals["deaths", (str(row.end_cause or ""), with_work)] += 1
        self.lateness.add(noticed - (row.ended_at or noticed))

    # -- over restarts -----------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Return everything, as JSON takes it."""
        return {
            "decision": self._decision,
            "notice": self._notice,
            "totals": [[name, list(labels), count] for (name, labels), count in self.totals.items()],
            "lateness": [self.lateness.counts, self.lateness.total],
            "boots": [self.boots.counts, self.boots.total],
            "deaths": [[*key, at] for key, at in self._deaths.items()],
            "launches": [[*key, at] for key, at in self._launches.items()],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> CountedEvents:
        """Return what `as_json` made this of.

        Raises:
            ValueError, TypeError, KeyError: it is anything else.
        """
        made = cls()
        made._decision, made._notice = int(said["decision"]), int(said["notice"])
        for name, labels, count in said["totals"]:
            if len(labels) == len(LABELS.get(name, ())):  # an older version may have counted otherwise
                made.totals[str(name), tuple(map(str, labels))] = int(count)
        made.lateness = Spread(LATENESS_SECS, list(map(int, said["lateness"][0])), float(said["lateness"][1]))
        made.boots = Spread(BOOT_SECS, list(map(int, said["boots"][0])), float(said["boots"][1]))
        made._deaths = {(str(who), int(number)): float(at) for who, number, at in said["deaths"]}
        made._launches = {(str(who), int(number)): float(at) for who, number, at in said["launches"]}
        return made


_DEFAULTS = {"kind": "task"}


def _remember(known: dict[tuple[str, int], float], key: tuple[str, int], at: float) -> None:
    known[key] = at
    if len(known) > PENDING:
        del known[next(iter(known))]
