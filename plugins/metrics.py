"""Serves the fleet's metrics to Prometheus, on this host only unless its section says otherwise.

They are read from the store when somebody scrapes (`circus_failover.metrics`), in a thread of its own, so
that a circusd that is slow or gone delays no scrape. Nothing is asked for and nobody is told anything here.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circus_failover.counted_events import CountedEvents
from circus_failover.plugin import FailoverPlugin
from circus_failover.plugin_input import Event
from circus_failover.state_dir import StateDir
from circus_failover.store import Reader

if TYPE_CHECKING:
    from circus_failover.metrics import Circusd

HOST, PORT = "127.0.0.1", 9478
CATCH_UP_SECS = 2.0
"""How long a tick goes on counting what it has not seen: the history of months, at the first one of all."""
OWN_OPTIONS = ("host", "port", "allow_remote")


class Metrics(FailoverPlugin):
    """Serves `http://HOST:PORT/metrics`."""

    name = "metrics"
    default_interval = 15.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        own = {name: str(config.pop(name)).strip() for name in OWN_OPTIONS if name in config}
        super().__init__(*arguments, **config)
        # Not at the top: every plugin's process imports this package, and prometheus_client is 2 MB of it.
        from circus_failover.metrics import FleetCollector

        self._collector = FleetCollector(self._where, self._of_circusd)
        self._answered_at = 0.0
        self._server: Any = None
        self._address = self._read(own)

    # -- as the base class drives it -------------------------------------------------------------------

    def initialize(self) -> None:
        """Serve, also before circusd has answered."""
        self._serve()
        super().initialize()

    async def tick(self, store: Reader) -> None:
        """Try again to serve where that failed, and count what happened though nobody scraped."""
        self._serve()
        until = time.monotonic() + CATCH_UP_SECS
        while self._collector.follow(store) and time.monotonic() < until:
            await asyncio.sleep(0)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Nothing: whoever scrapes reads what is true then."""

    def concerns(self, event: Event) -> bool:
        """No event does."""
        return False

    def remember(self, detail: Mapping[str, Any]) -> None:
        """Go on from the totals of an earlier process, so that a restart looks like no reset."""
        counted = detail.get("counted")
        try:
            events = CountedEvents.from_json(counted) if counted else CountedEvents()
        except (ValueError, TypeError, KeyError):
            self._collector.count_from(CountedEvents())
            raise
        self._collector.count_from(events)

    def remembered(self) -> dict[str, Any]:
        """Return the totals."""
        return {"counted": self._collector.counted()}

    def _report(self, secs: float) -> None:
        super()._report(secs)
        self._answered_at = time.time()

    # -- serving ---------------------------------------------------------------------------------------

    def _where(self) -> StateDir | None:
        return None if self._state_dir is None else StateDir(self._state_dir)

    def _of_circusd(self) -> Circusd:
        from circus_failover.metrics import Circusd

        return Circusd(self._answered_at > 0 and not self._silent, self._answered_at)

    def _read(self, own: Mapping[str, str]) -> tuple[str, int] | None:
        """Return where to serve; None when the section asks for what it does not allow."""
        host, said = own.get("host") or HOST, own.get("allow_remote", "false")
        if said.lower() not in ("true", "false"):
            self._mistake(f"allow_remote = {said!r}: expected true or false; false is used")
        port = PORT
        if "port" in own:
            if own["port"].isdecimal() and own["port"].isascii() and 1 <= int(own["port"]) <= 65535:
                port = int(own["port"])
            else:
                self._mistake(f"port = {own['port']!r}: expected a port from 1 to 65535; {PORT} is used")
        if said.lower() != "true" and not _local(host):
            self._mistake(
                f"host = {host!r}: others than this host could read the metrics, which name agents and "
                "accounts; nothing is served. Name 127.0.0.1, or say allow_remote = true"
            )
            return None
        return host, port

    def _serve(self) -> None:
        if self._address is None or self._server is not None:
            return
        from prometheus_client import CollectorRegistry, start_http_server

        host, port = self._address
        registry = CollectorRegistry()
        registry.register(self._collector)
        try:
            self._server, _ = start_http_server(port, host, registry)
        except (OSError, UnicodeError) as error:
            busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "another program listens there: name another port" if busy else str(error)
            evidence = f"metrics are not served on {host} port {port}: {why}; tried again at each tick"
            self.trouble("", evidence)
            if self._said.changed("serving", "", evidence):
                self.find("", "error", outcome="not-served", evidence=evidence)
            return
        if self._said.changed("serving", "", True):
            self.find("", "metrics", outcome="served", evidence=f"http://{host}:{port}/metrics")


def _local(host: str) -> bool:
    """Say whether an address is this host's own, which nobody else can reach; a name may be anybody's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
