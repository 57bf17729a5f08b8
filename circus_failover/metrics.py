"""The metrics of a fleet, for Prometheus: read from the store and the state directory at each scrape.

Nothing here asks circusd or tmux, and nothing is written. Labels are words of the design and names of the
configuration, so that their number is bounded; identities are a label of `failover_agent_info` alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from circus_failover import account_rows, agent_health
from circus_failover.agent_health import Seen
from circus_failover.counted_events import LABELS, CountedEvents, Spread
from circus_failover.plugin_input import agent_policy
from circus_failover.policy.accounts import Known, current
from circus_failover.records import AgentRow
from circus_failover.state_dir import StateDir
from circus_failover.store import Reader, StoreError, open_reader
from circus_failover.words import AccountState, AssignmentState, FaultKind, Phase, State

_HELP = {
    "launches": "Launches that were begun, by why; adopted ones are not launched",
    "wakes": "Wakes, by how the launch began (fresh, resume) or that it did not (refused, failed), and why",
    "refusals": "Launches that the gate or a hold refused, by cause",
    "deaths": (
        "Launches that ended though nobody ended them, by cause, and whether the agent had an assignment; "
        "counted 10 s after a death was noticed, when its cause is known"
    ),
    "ends": "Deliberate ends that were carried out, by what was asked for and what was found",
    "task_events": "What became of texts in agents' queues, by what they are for",
    "assignment_events": (
        "Steps of assignments that an agent is part of; recovered counts the retries after a death"
    ),
    "notices": "What somebody was to be told of, by kind, whether anybody was told or not",
}


@dataclass(frozen=True)
class Circusd:
    """What a plugin knows of its circusd."""

    answers: bool
    """It answered the last time it was asked."""
    answered_at: float
    """When it last did, in epoch seconds; 0: never."""


class FleetCollector(Collector):
    """Makes the metrics of one fleet, at each scrape anew."""

    def __init__(
        self,
        state: Callable[[], StateDir | None],
        circusd: Callable[[], Circusd],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the collector; nothing is read yet.

        Args:
            state: says where the state directory is; None while nobody knows.
            circusd: says how it stands with circusd.
            clock: epoch seconds.
        """
        self._state, self._circusd, self._clock = state, circusd, clock
        self._lock = threading.Lock()
        self._events: CountedEvents | None = None

    def count_from(self, events: CountedEvents) -> None:
        """Go on counting from these totals; before that there are none."""
        with self._lock:
            self._events = events

    def counted(self) -> dict[str, Any]:
        """Return what was counted, as JSON takes it; empty when nothing was."""
        with self._lock:
            return {} if self._events is None else self._events.as_json()

    def follow(self, store: Reader) -> bool:
        """Count what has happened since the last time, also while nobody scrapes.

        Returns:
            Whether there may be more.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._lock:
            return self._events is not None and self._events.follow(store, self._clock())

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is is known at a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return every metric; a store that cannot be read leaves those that say so."""
        begun, now = time.perf_counter(), self._clock()
        circusd, state = self._circusd(), self._state()
        yield _gauge("circusd_up", "Whether circusd answered the last time it was asked", circusd.answers)
        answered = "When circusd last answered the metrics plugin, in epoch seconds"
        yield _gauge("circusd_answered_timestamp_seconds", answered, circusd.answered_at)
        metrics: list[Metric] = []
        if state is not None:
            yield _gauge("spool_reports", "Reports that wait for circusd to take them in", _waiting(state))
            try:
                store = open_reader(state.store)
                try:
                    metrics = list(self._of_store(store, now))
                finally:
                    store.close()
                metrics.append(_gauge("store_size_bytes", "Size of the store's database file", _size(state)))
            except StoreError:
                metrics = []  # half of it would look like a fleet of half the size
        yield _gauge("store_readable", "Whether the store could be read for this scrape", bool(metrics))
        yield from metrics
        took = "How long it took to make these metrics"
        yield _gauge("collect_duration_seconds", took, time.perf_counter() - begun)

    def _of_store(self, store: Reader, now: float) -> Iterator[Metric]:
        agents = [row for row in store.agents().values() if row.declared]
        yield from _of_agents(agents, now)
        yield from _of_accounts((account_rows.known(row) for row in store.accounts().values()), now)
        yield from _of_plugins(store)
        yield from _of_tasks(store, now)
        yield from _of_assignments(store, now)
        exits = CounterMetricFamily(
            "failover_server_exits",
            "Ends of tmux servers that nobody meant, by cause, and whether they were seen as they happened "
            "(live, within milliseconds) or found afterwards (post-factum)",
            labels=["cause", "detected"],
        )
        for labels, count in store.server_exit_counts().items():
            exits.add_metric(labels, count)
        yield exits
        with self._lock:
            if self._events is not None:
                self._events.follow(store, now)
                yield from _of_events(self._events)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"failover_{name}", text, value=float(value))


def _counted(name: str, text: str, labels: list[str], counts: Counter[tuple[str, ...]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"failover_{name}", text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def _waiting(state: StateDir) -> int:
    try:
        return sum(name.endswith(".json") and name[0] != "." for name in os.listdir(state.spool))
    except OSError:
        return 0


def _size(state: StateDir) -> int:
    try:
        return state.store.stat().st_size
    except OSError:
        return 0


# -- agents -------------------------------------------------------------------------------------------


def _of_agents(agents: list[AgentRow], now: float) -> Iterator[Metric]:
    labels = ["phase", "state", "account", "runtime", "pool"]
    info = GaugeMetricFamily(
        "failover_agent_info",
        "Always 1: what the supervisor holds an agent to, and what it was last seen to do",
        labels=["identity", *labels],
    )
    counts: Counter[tuple[str, ...]] = Counter()
    holds: Counter[tuple[str, ...]] = Counter()
    for row in agents:
        seen = agent_health.read(row.health) if row.pid is not None else None
        if seen is not None and not (seen.of(row.generation, row.process) and seen.holds(now)):
            seen = None
        values = (row.phase, _state(row, seen), row.account or "", row.runtime or "", _pool(row))
        counts[values] += 1
        info.add_metric((row.identity, *values), 1)
        if row.loop != "closed":
            holds[(row.loop,)] += 1
    yield _counted(
        "agents", "Agents, by phase, state, and the account, runtime and pool they are in", labels, counts
    )
    yield info
    held = "Agents that crash in a loop: held for a time (open), on trial (half-open), or given up"
    yield _counted("crash_loop_agents", held, ["loop"], holds)


# -- accounts -----------------------------------------------------------------------------------------


def _of_accounts(accounts: Iterable[Known], now: float) -> Iterator[Metric]:
    """Yield what is known of accounts; what time has ended, circusd may not have stored yet."""
    until = GaugeMetricFamily(
        "failover_account_limited_until_timestamp_seconds",
        "Until when an account is limited, or not logged in, in epoch seconds; +Inf: nobody knows",
        labels=["account", "kind"],
    )
    models = GaugeMetricFamily(
        "failover_account_model_limited_until_timestamp_seconds",
        "Until when one model of an account is limited, in epoch seconds; +Inf: nobody knows",
        labels=["account", "model"],
    )
    used = GaugeMetricFamily(
        "failover_account_used_ratio",
        "How much of a window of an account is used, from 0 to 1, as a client said last",
        labels=["account", "window"],
    )
    states: Counter[tuple[str, ...]] = Counter()
    for known in (current(one, now) for one in accounts):
        states[known.name, known.runtime, str(known.state)] = 1
        if known.state.exhausted:
            at = float("inf") if known.until is None else known.until
            until.add_metric((known.name, _exhausted_by(known)), at)
        for limit in known.models:
            at = float("inf") if limit.until is None else limit.until
            models.add_metric((known.name, limit.name), at)
        for usage in known.usage:
            used.add_metric((known.name, usage.window), usage.used)
    text = "Always 1: what is known of an account"
    yield _counted("account_info", text, ["account", "runtime", "state"], states)
    yield from (until, models, used)


def _exhausted_by(known: Known) -> str:
    if known.state is AccountState.CREDENTIALS:
        return str(FaultKind.CREDENTIALS)
    credit = known.limit_name == FaultKind.CREDIT
    return str(FaultKind.CREDIT if credit else FaultKind.USAGE_LIMIT)


def _state(row: AgentRow, seen: Seen | None) -> str:
    if row.phase not in (Phase.UP, Phase.OBSERVED) or row.pid is None:
        return ""
    return str(State.UNKNOWN if seen is None else seen.health.state)


def _pool(row: AgentRow) -> str:
    policy = agent_policy(row.policy)
    return (policy.pool if policy is not None else None) or ""


# -- plugins, tasks, assignments ------------------------------------------------------------------------


def _of_plugins(store: Reader) -> Iterator[Metric]:
    ticks = CounterMetricFamily("failover_plugin_ticks", "Ticks of a plugin", labels=["plugin"])
    errors = CounterMetricFamily(
        "failover_plugin_errors", "What failed in a plugin; the log and doctor say what", labels=["plugin"]
    )
    gauges = {
        name: GaugeMetricFamily(f"failover_plugin_{name}", text, labels=["plugin"])
        for name, text in {
            "tick_duration_seconds": "How long a plugin's last tick took",
            "interval_seconds": "Seconds from one tick of a plugin to the next",
            "last_tick_timestamp_seconds": "When a plugin's last tick ended, in epoch seconds",
        }.items()
    }
    for name, row in store.plugins().items():
        ticks.add_metric((name,), row.ticks)
        errors.add_metric((name,), row.errors)
        for gauge, value in zip(gauges.values(), (row.secs, row.interval, row.at), strict=True):
            gauge.add_metric((name,), value)
    yield from (ticks, errors, *gauges.values())


def _of_tasks(store: Reader, now: float) -> Iterator[Metric]:
    counts: Counter[tuple[str, ...]] = Counter()
    ages: dict[tuple[str, ...], float] = {}
    for kind, state, count, oldest in store.task_counts():
        counts[kind, state] = count
        ages[(kind,)] = max(ages.get((kind,), 0.0), now - oldest)
    text = "Texts in the queues of agents, by what they are for"
    yield _counted("tasks", text, ["kind", "state"], counts)
    yield _ages("task_oldest_age_seconds", "Age of the oldest text in any agent's queue", "kind", ages)


def _of_assignments(store: Reader, now: float) -> Iterator[Metric]:
    counts: Counter[tuple[str, ...]] = Counter()
    queued: Counter[tuple[str, ...]] = Counter()
    ages: dict[tuple[str, ...], float] = {}
    most = 0
    for state, pool, owned, count, oldest, retries in store.assignment_counts():
        counts[state, pool] += count
        most = max(most, retries)
        if state == AssignmentState.QUEUED and not owned:
            queued[(pool,)] = count
            ages[(pool,)] = now - oldest
    text = "Assignments that are not over, by state and pool; those for one agent have no pool"
    yield _counted("assignments", text, ["state", "pool"], counts)
    text = "Assignments that wait for an owner, by pool"
    yield _counted("assignment_queue_length", text, ["pool"], queued)
    text = "Age of the oldest assignment that waits for an owner, by pool"
    yield _ages("assignment_queue_oldest_age_seconds", text, "pool", ages)
    yield _gauge("assignment_retries_max", "Most launches that died with one of the open assignments", most)


def _ages(name: str, text: str, label: str, ages: dict[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"failover_{name}", text, labels=[label])
    for values, age in sorted(ages.items()):
        family.add_metric(values, max(0.0, age))
    return family


# -- what has happened ----------------------------------------------------------------------------------


def _of_events(events: CountedEvents) -> Iterator[Metric]:
    families = {
        name: CounterMetricFamily(f"failover_{name}", _HELP[name], labels=list(labels))
        for name, labels in LABELS.items()
    }
    for (name, values), count in sorted(events.totals.items()):
        families[name].add_metric(values, count)
    yield from families.values()
    yield _histogram(
        "death_detection_delay_seconds",
        "For how long a launch had been dead when that was noticed. Ends are known to the second: the first "
        "bucket holds all that were noticed as they happened; later ones happened while no circusd ran",
        events.lateness,
    )
    yield _histogram("boot_duration_seconds", "From the beginning of a launch until it was up", events.boots)


def _histogram(name: str, text: str, spread: Spread) -> HistogramMetricFamily:
    reached, buckets = 0, []
    for bound, count in zip((*map(str, spread.bounds), "+Inf"), spread.counts, strict=True):
        reached += count
        buckets.append((bound, reached))
    family = HistogramMetricFamily(f"failover_{name}", text)
    family.add_metric([], buckets, sum_value=spread.total)
    return family
