"""/metrics: the fleets of this machine for Prometheus, and what the console's own process uses.

The same metrics as those of the plugin `Metrics`, with the label `host`; of a host on another machine only
whether it answers. All of it is read in a thread, from the stores: circusd is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector, generate_latest
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from circus_failover.counted_events import CountedEvents
from circus_failover.metrics import Circusd, FleetCollector
from circus_failover.state_dir import StateDir
from circus_failover.store import StoreError, open_reader
from circus_failover.web.handler import ConsoleHandler
from circus_failover.web.hosts import Host

CATCH_UP_SECS = 2.0
"""How long one scrape goes on counting what has happened: a history of months takes several scrapes."""
_OF_ALL = frozenset(("failover_circusd_up", "failover_circusd_answered_timestamp_seconds"))
"""What is said of hosts on other machines too."""


def routes() -> list[tuple[Any, ...]]:
    """Return the route of the metrics."""
    return [(r"/metrics", MetricsHandler)]


class _FleetOfHost:
    """The metrics of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._collector = FleetCollector(self._where, self._of_circusd)
        self._collector.count_from(CountedEvents())

    def families(self) -> Iterator[Metric]:
        """Return the host's metrics, with its name as a label."""
        state = self._where()
        if state is not None:
            self._count(state)
        for family in self._collector.collect():
            if state is None and family.name not in _OF_ALL:
                continue
            labelled = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                labels = {"host": self._host.name, **sample.labels}
                labelled.samples.append(sample._replace(labels=labels))
            yield labelled

    def _count(self, state: StateDir) -> None:
        until = time.monotonic() + CATCH_UP_SECS
        with contextlib.suppress(StoreError):  # the metrics themselves say that it cannot be read
            store = open_reader(state.store)
            try:
                while self._collector.follow(store) and time.monotonic() < until:
                    pass
            finally:
                store.close()

    def _where(self) -> StateDir | None:
        return self._host.state

    def _of_circusd(self) -> Circusd:
        link = self._host.link
        answered = time.time() if link.reachable else link.since if self._host.circusd else 0.0
        return Circusd(link.reachable, answered)


class FleetMetrics(Collector):
    """The metrics of all hosts; kept between scrapes, since it counts."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self._fleets = [_FleetOfHost(host) for host in hosts]
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is is known at a scrape."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return every metric, each once, with the samples of all hosts."""
        found: dict[str, Metric] = {}
        for fleet in self._fleets:
            for family in fleet.families():
                if family.name in found:
                    found[family.name].samples.extend(family.samples)
                else:
                    found[family.name] = family
        return found.values()

    def text(self) -> bytes:
        """Return the page; takes as long as the disk does."""
        return generate_latest(self._registry)


class MetricsHandler(ConsoleHandler):
    """Answers a scrape, with the bearer token or a session."""

    async def get(self) -> None:
        """Answer it."""
        made: FleetMetrics = self.application.settings.setdefault("metrics", FleetMetrics(self.console.hosts))
        text = await asyncio.to_thread(made.text)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(text)
