"""What Prometheus is told of a fleet is what the store says, and totals never go back."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from circus_failover.plugins import Metrics
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from circus_failover import account_rows, agent_health
from circus_failover.agent_health import Seen
from circus_failover.counted_events import SETTLE_SECS, CountedEvents
from circus_failover.metrics import Circusd, FleetCollector
from circus_failover.policy.accounts import Known, ModelLimit, Usage
from circus_failover.policy.health import Health
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow, AssignmentRow, LaunchRow, PluginRow, ServerExitRow, TaskRow
from circus_failover.state_dir import StateDir
from circus_failover.store import Store
from circus_failover.words import AccountState, State
from tests.ports import free_port

NOW = 1_800_000_000.0
DASHBOARD = Path(__file__).resolve().parent.parent / "docs" / "grafana-dashboard.json"
POLICY = (
    '{"mode": "manage", "restart": "lazy", "idle_secs": 1, "max_age_secs": 0, "crash_max": 3, '
    '"crash_window_secs": 300, "stable_secs": 300, "pool": "review"}'
)


class Yard:
    """A store, and what Prometheus would be told of it."""

    def __init__(self, folder: Path) -> None:
        self.state = StateDir(folder / "state")
        self.state.prepare()
        self.store = Store(self.state.store)
        self.now = NOW
        self.answers = True
        self.collector = self.another(CountedEvents())

    def another(self, counted: CountedEvents | None) -> FleetCollector:
        """Make the collector of another process that counts on from there."""
        made = FleetCollector(lambda: self.state, lambda: Circusd(self.answers, NOW - 1), lambda: self.now)
        if counted is not None:
            made.count_from(counted)
        self.collector = made
        return made

    def text(self) -> str:
        registry = CollectorRegistry()
        registry.register(self.collector)
        return generate_latest(registry).decode()

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name.removeprefix("failover_"), tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample; None when there is none."""
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def history(
        self, ev: str, at: float = NOW, identity: str = "bob", generation: int = 1, **detail: Any
    ) -> None:
        with self.store.decision(durable=False):
            self.store.add_history(at, identity, generation, ev, detail)

    def agent(self, identity: str, health: Health | None = None, seen: float = NOW, **changes: Any) -> None:
        row = AgentRow(identity, phase="up", generation=1, pid=10, pid_start=5, account="one", policy=POLICY)
        if health is not None:
            text = agent_health.text(Seen(1, ProcessId(10, 5), seen, 5.0, health))
            row = replace(row, health=text)
        with self.store.decision(durable=False):
            self.store.put_agent(replace(row, runtime="claude", **changes))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


# -- gauges ---------------------------------------------------------------------------------------------


def test_agents_are_counted_by_what_they_are_held_to_and_what_they_were_seen_to_do(yard: Yard) -> None:
    yard.agent("bob", Health(State.WORKING, at=NOW))
    yard.agent("eve", Health(State.WORKING, at=NOW), seen=NOW - 3600)  # too long ago to be believed
    yard.agent("joe", Health(State.IDLE, at=NOW), phase="parked", pid=None, pid_start=None)
    yard.agent("old", declared=False)
    where = {"account": "one", "runtime": "claude", "pool": "review"}
    assert yard.value("agents", phase="up", state="working", **where) == 1
    assert yard.value("agents", phase="up", state="unknown", **where) == 1
    assert yard.value("agents", phase="parked", state="", **where) == 1
    assert yard.value("agent_info", identity="bob", phase="up", state="working", **where) == 1
    assert '"old"' not in yard.text()


def test_what_is_known_of_accounts_is_told_until_it_is_over(yard: Yard) -> None:
    usage = (Usage("5-hour", 1.0, NOW + 600, NOW - 9), Usage("weekly", 0.5, NOW + 9999, NOW - 9))
    opus = ModelLimit("opus", None, NOW - 9)
    limited = Known(
        "one", "claude", AccountState.LIMITED, "5-hour", NOW + 600, "their words", seen_at=NOW - 9
    )
    with yard.store.decision(durable=False):
        yard.store.put_account(account_rows.row(replace(limited, usage=usage, models=(opus,))))
        yard.store.put_account(account_rows.row(Known("two", "codex", AccountState.CREDENTIALS, seen_at=1.0)))
        broke = Known("three", "codex", AccountState.LIMITED, "credit", seen_at=NOW - 9)
        yard.store.put_account(account_rows.row(broke))
    until = "account_limited_until_timestamp_seconds"
    assert yard.value(until, account="one", kind="usage-limit") == NOW + 600
    assert yard.value(until, account="two", kind="credentials") == float("inf")
    assert yard.value(until, account="three", kind="credit") == float("inf")
    assert yard.value("account_info", account="one", runtime="claude", state="limited") == 1
    model = "account_model_limited_until_timestamp_seconds"
    assert yard.value(model, account="one", model="opus") == float("inf")
    assert yard.value("account_used_ratio", account="one", window="weekly") == 0.5
    assert "their words" not in yard.text()
    yard.now += 600
    assert yard.value(until, account="one", kind="usage-limit") is None
    assert yard.value("account_info", account="one", runtime="claude", state="unknown") == 1
    assert yard.value("account_used_ratio", account="one", window="5-hour") is None
    yard.now -= 600


def test_what_waits_is_counted_with_its_age_and_no_text_of_it_is_shown(yard: Yard) -> None:
    with yard.store.decision(durable=False):
        yard.store.add_task(TaskRow(0, "bob", "secret-one", None, "me", NOW - 5, kind="tell"))
        for number, age in enumerate((10, 90, 5)):
            row = AssignmentRow(0, f"job-{number}", "secret-two", "me", NOW - age, pool="review")
            yard.store.add_assignment(
                row if number else replace(row, owner="bob", state="working", retries=2)
            )
        yard.store.add_assignment(AssignmentRow(0, "over", "x", "me", 0.0, state="done", done_at=NOW))
    assert yard.value("tasks", kind="tell", state="queued") == 1
    assert yard.value("task_oldest_age_seconds", kind="tell") == 5
    assert yard.value("assignments", state="working", pool="review") == 1
    assert yard.value("assignment_queue_length", pool="review") == 2
    assert yard.value("assignment_queue_oldest_age_seconds", pool="review") == 90
    assert yard.value("assignment_retries_max") == 2
    assert "secret" not in yard.text() and "done" not in yard.text()


def test_plugins_servers_ends_the_spool_and_circusd_are_told(yard: Yard) -> None:
    with yard.store.decision(durable=False):
        yard.store.put_plugin(PluginRow("IdleReaper", 7, NOW - 3, 0.25, 30.0, ticks=9, errors=2))
        exit_row = ServerExitRow(
            *("boot", 1, 2, "/s", NOW, 9.0, 9, None, "none", "killed", "live", None, "SIGKILL", None, [])
        )
        yard.store.add_server_exit(exit_row)
    (yard.state.spool / "1-1-self.json").write_text("{}")
    (yard.state.spool / ".1-2-self.json.tmp").write_text("{}")
    yard.answers = False
    assert yard.value("plugin_ticks_total", plugin="IdleReaper") == 9
    assert yard.value("plugin_errors_total", plugin="IdleReaper") == 2
    assert yard.value("plugin_tick_duration_seconds", plugin="IdleReaper") == 0.25
    assert yard.value("plugin_last_tick_timestamp_seconds", plugin="IdleReaper") == NOW - 3
    assert yard.value("server_exits_total", cause="killed", detected="live") == 1
    assert yard.value("spool_reports") == 1
    assert (yard.value("circusd_up"), yard.value("circusd_answered_timestamp_seconds")) == (0, NOW - 1)


def test_a_store_that_cannot_be_read_is_said_and_half_a_fleet_is_not_shown(yard: Yard) -> None:
    yard.agent("bob")
    assert yard.value("store_readable") == 1
    yard.store.close()
    yard.state.store.write_bytes(b"no database")
    assert (yard.value("store_readable"), yard.value("circusd_up")) == (0, 1)
    assert "failover_agents" not in yard.text()


# -- totals ---------------------------------------------------------------------------------------------


def launched(yard: Yard, identity: str, **launch: Any) -> None:
    with yard.store.decision(durable=False):
        yard.store.add_launch(LaunchRow(identity, 1, "first-start", "me", None, None, NOW - 100, **launch))


def test_launches_wakes_tasks_work_and_notices_count_once_each(yard: Yard) -> None:
    launched(yard, "bob")
    yard.history("wake", NOW, mode="fresh", cause="first-wake")
    yard.history("launch", NOW, cause="first-start")
    yard.history("up", NOW + 3)
    yard.history("task", action="delivered", kind="assignment")
    yard.history("work", action="recovered")
    yard.history("stopped", intent="park", outcome="ended")
    yard.history("state", state="idle")
    with yard.store.decision(durable=False):
        yard.store.add_notice(NOW, "held", "bob", "bob", "it is held", {})
    for _ in range(2):
        assert yard.value("wakes_total", mode="fresh", cause="first-wake") == 1
        assert yard.value("launches_total", cause="first-start") == 1
        assert yard.value("task_events_total", kind="assignment", action="delivered") == 1
        assert yard.value("assignment_events_total", action="recovered") == 1
        assert yard.value("ends_total", intent="park", outcome="ended") == 1
        assert yard.value("notices_total", kind="held") == 1
    assert yard.value("boot_duration_seconds_bucket", le="2.0") == 0
    assert yard.value("boot_duration_seconds_bucket", le="5.0") == 1
    assert yard.value("boot_duration_seconds_sum") == 3


def test_a_death_counts_by_the_cause_that_is_known_in_the_end_and_how_late_it_was_noticed(yard: Yard) -> None:
    launched(yard, "bob", ended_at=NOW - 45, planned=False, end_cause="ended-unknown", assignment="job-1")
    yard.history("exit", NOW, cause="ended-unknown")
    assert yard.value("deaths_total", cause="ended-unknown", assignment="yes") is None
    with yard.store.decision(durable=False):
        yard.store.update_launch("bob", 1, end_cause="signaled")
    yard.now += SETTLE_SECS
    assert yard.value("deaths_total", cause="signaled", assignment="yes") == 1
    assert yard.value("death_detection_delay_seconds_bucket", le="30.0") == 0
    assert yard.value("death_detection_delay_seconds_bucket", le="60.0") == 1


def test_an_agent_that_was_stuck_is_a_death_and_one_that_was_stopped_is_none(yard: Yard) -> None:
    launched(yard, "bob", ended_at=NOW, planned=False, end_cause="stuck")
    launched(yard, "eve", ended_at=NOW, planned=True, end_cause="operator-stop")
    yard.history("stopped", intent="stuck", outcome="ended")
    yard.history("exit", identity="eve", cause="ended-unknown")
    assert yard.samples()
    yard.now += SETTLE_SECS
    assert yard.value("deaths_total", cause="stuck", assignment="no") == 1
    assert len([key for key in yard.samples() if key[0] == "deaths_total"]) == 1


def test_totals_survive_a_restart_of_the_plugin_and_a_purge(yard: Yard) -> None:
    for _ in range(3):
        yard.history("launch", cause="first-start")
    launched(yard, "bob", ended_at=NOW, planned=False, end_cause="exited")
    yard.history("exit")
    assert yard.value("launches_total", cause="first-start") == 3
    kept = json.loads(json.dumps(yard.collector.counted()))
    yard.another(CountedEvents.from_json(kept))
    yard.history("launch", cause="first-start")
    yard.now += SETTLE_SECS
    assert yard.value("launches_total", cause="first-start") == 4
    assert yard.value("deaths_total", cause="exited", assignment="no") == 1
    with yard.store.decision(durable=False):
        yard.store.purge("bob")
    assert yard.value("launches_total", cause="first-start") == 4
    yard.history("launch", identity="eve", cause="first-start")
    assert yard.value("launches_total", cause="first-start") == 5


def test_before_what_was_counted_is_known_there_are_no_totals(yard: Yard) -> None:
    """Zeros would look like a reset, and the totals after it like a burst."""
    yard.history("launch", cause="first-start")
    yard.another(None)
    assert yard.value("launches_total", cause="first-start") is None
    assert yard.value("store_readable") == 1


@pytest.mark.parametrize(
    "stored", [{}, {"decision": 1}, {"decision": "x"}, {"decision": 1, "notice": 2, "totals": 3}]
)
def test_what_was_stored_and_makes_no_sense_is_an_error_and_not_a_total(stored: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        CountedEvents.from_json(stored)


# -- what Prometheus and Grafana think of it ----------------------------------------------------------


@pytest.fixture
def full(yard: Yard) -> Yard:
    """Every metric has at least one sample."""
    test_plugins_servers_ends_the_spool_and_circusd_are_told(yard)
    test_launches_wakes_tasks_work_and_notices_count_once_each(yard)
    test_what_is_known_of_accounts_is_told_until_it_is_over(yard)
    test_what_waits_is_counted_with_its_age_and_no_text_of_it_is_shown(yard)
    launched(yard, "joe", ended_at=NOW, planned=False, end_cause="exited")
    yard.history("exit", identity="joe")
    yard.history("refuse", cause="shared-state")
    yard.agent("ann", loop="open", phase="held")
    assert yard.samples()
    yard.now += SETTLE_SECS
    return yard


def test_every_metric_has_a_help_text_and_a_name_with_its_unit(full: Yard) -> None:
    families = list(text_string_to_metric_families(full.text()))
    assert len(families) > 25
    for family in families:
        assert family.name.startswith("failover_") and len(family.documentation) > 10, family
        assert family.samples or family.type == "counter", family
        assert not re.search(r"(_secs|_ms|_count)$", family.name)


def test_only_one_metric_names_agents(full: Yard) -> None:
    named = {
        family.name
        for family in text_string_to_metric_families(full.text())
        for sample in family.samples
        if "identity" in sample.labels
    }
    assert named == {"failover_agent_info"}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing_wrong(full: Yard) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=full.text(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_metric_that_the_dashboard_asks_for_exists(full: Yard) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    queries += [variable.get("query", "") for variable in dashboard["templating"]["list"]]
    asked = set(re.findall(r"failover_\w+", " ".join(map(str, queries))))
    there = {"failover_" + name for name, _ in full.samples()}
    assert len(asked) > 20 and asked <= there, asked - there
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)


# -- the plugin -----------------------------------------------------------------------------------------


def plugin(**options: str) -> Metrics:
    return Metrics("ipc:///nowhere/ctl", "ipc:///nowhere/pub", 1.0, **options)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "metrics.example"])
def test_only_this_host_is_served_unless_the_section_allows_others(host: str) -> None:
    refused = plugin(host=host)
    assert refused._address is None
    (finding,) = refused._findings
    assert "allow_remote" in finding["evidence"] and host in finding["evidence"]
    refused._serve()
    assert refused._server is None
    assert plugin(host=host, allow_remote="True")._address == (host, 9478)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", ""])
def test_this_host_by_any_of_its_names_needs_no_leave(host: str) -> None:
    assert plugin(host=host)._findings == []


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "1e3", "٣", ""])
def test_a_port_that_is_none_leaves_the_default_and_is_named(port: str) -> None:
    made = plugin(port=port)
    assert made._address == ("127.0.0.1", 9478) and f"port = {port!r}" in made._findings[0]["evidence"]


def test_a_busy_port_is_said_once_and_served_as_soon_as_it_is_free() -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", free_port()))
        squatter.listen()
        made = plugin(port=str(squatter.getsockname()[1]))
        for _ in range(3):
            made._serve()
        (finding,) = made._findings
        assert finding["outcome"] == "not-served" and "another program listens there" in finding["evidence"]
    made._serve()
    assert [one["outcome"] for one in made._findings] == ["not-served", "served"]
    assert made._address is not None
    made._answered_at = time.time()
    with urllib.request.urlopen(f"http://127.0.0.1:{made._address[1]}/metrics", timeout=10) as answer:
        assert b"failover_circusd_up 1.0" in answer.read()
    made._server.shutdown()
    made._server.server_close()
