"""Prometheus scrapes a real fleet."""

from __future__ import annotations

import os
import signal
import urllib.request

from tests.live.fleet import Fleet, wait_for


def test_a_fleet_is_scraped_and_a_plugin_that_was_killed_goes_on_counting(fleet: Fleet) -> None:
    # None that the system hands out itself (from 32768, ip(7)): somebody else may have such a one by then.
    port = 20000 + os.getpid() % 10000
    fleet.plugins["plugin:metrics"] = {
        "use": "circus_failover.plugins.Metrics",
        "port": str(port),
        "interval": "0.5",
    }
    fleet.agent("bob", failover__pool="review")
    fleet.start()
    fleet.await_up("bob")

    def scraped(*lines: str) -> str | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = str(answer.read().decode())
        return text if all(line in text for line in lines) else None

    where = 'account="",phase="up",pool="review",runtime="command",state="unknown"'
    launched = 'failover_launches_total{cause="first-start"} 1.0'
    wait_for("it is told", lambda: scraped(f"failover_agents{{{where}}} 1.0", launched, "circusd_up 1.0"))
    with fleet.store() as store:
        plugin = wait_for("it ticks", lambda: store.plugins().get("Metrics"))
    (served,) = [line for line in fleet.lifecycle() if line.get("outcome") == "served"]
    assert served["evidence"] == f"http://127.0.0.1:{port}/metrics"
    os.kill(plugin.pid, signal.SIGKILL)
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    assert fleet.ctl("wake", "bob").code == 0
    wait_for(
        "the next one tells both launches, and the end",
        lambda: scraped(
            launched,
            'failover_launches_total{cause="operator-wake"} 1.0',
            'failover_ends_total{intent="park",outcome="ended"} 1.0',
        ),
    )
