"""A client's reports reach a real circusd from inside a real launch, and do nothing but inform."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

from circus_failover import client_hooks
from tests.live.fleet import Events, Fleet, wait_for

REPORTER = Path(__file__).resolve().parents[2] / "bin" / "failover-event"
SESSION = "11111111-2222-3333-4444-555555555555"
# An agent that does what is typed: it is its own client, and runs hooks in a shell as clients do.
OBEYS = """sh -c 'echo obeys; while read -r line; do eval "$line"; done'"""


class Client:
    """What the agent is told to report."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._said = fleet, 0
        fleet.agent("bob", failover__command=OBEYS)

    def says(self, hook: str, before: str = "", **said: Any) -> None:
        """Let the agent's client report, with words before the shell that runs the hook."""
        path, script = (self._fleet.work / f"{hook}.{kind}" for kind in ("json", "sh"))
        path.write_text(json.dumps({"session_id": SESSION, "hook_event_name": hook, **said}))
        script.write_text(f"{client_hooks.command(REPORTER, hook)}\n")
        self._said += 1
        self._fleet.type("bob", f"{before} sh {script} <{path}; echo said-$(({self._said}+1000))")
        self._fleet.await_screen("bob", f"said-{self._said + 1000}")

    def pushed(self) -> dict[str, Any]:
        """Return what is stored of its reports."""
        with self._fleet.store() as store:
            row = store.agent("bob")
        assert row is not None
        return json.loads(row.pushed or "{}")  # type: ignore[no-any-return]

    def await_taken_in(self) -> dict[str, Any]:
        """Wait until no report waits, and return what is stored."""
        spool = self._fleet.state / "spool"
        wait_for("the spool is empty", lambda: [path.name for path in spool.iterdir()] == ["wake.sock"])
        return self.pushed()


def test_a_report_of_this_launch_is_kept_and_published_and_any_other_changes_nothing(fleet: Fleet) -> None:
    client = Client(fleet)
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "obeys")
    begun = time.time()
    with Events(fleet) as events:
        client.says("StopFailure", error="rate_limit", last_assistant_message="SECRET")
        events.await_one("watcher.bob.agent")
    found = client.await_taken_in()
    (event,) = found.values()
    assert begun - 1 < event.pop("at") < time.time()
    assert event.pop("client")[0] == view["pid"]
    assert found == {"StopFailure": {"session_id": SESSION, "error": "rate_limit"}}

    client.says("Stop", before="FAILOVER_GENERATION=2")
    client.says("Stop", before="FAILOVER_LAUNCH=forged")
    client.says("Stop", before="FAILOVER_IDENTITY=carol")
    # A further client that the agent runs: there is one process more between.
    client.says("SessionEnd", before="sh -c '\"$@\"; :' x", reason="other")
    assert client.await_taken_in().keys() == {"StopFailure"}
    client.says("Stop", background_tasks=[])
    client.says("SessionEnd", reason="prompt_input_exit")
    assert client.await_taken_in().keys() == {"StopFailure", "Stop", "SessionEnd"}
    after = fleet.view("bob")
    assert [after[name] for name in ("phase", "generation", "pid")] == ["up", 1, view["pid"]]
    assert fleet.ctl("restart", "bob").code == 0
    assert client.pushed() == {}, "what the last launch reported says nothing of this one"


def test_reports_made_while_circusd_is_down_are_taken_in_at_its_next_start_however_many(fleet: Fleet) -> None:
    client = Client(fleet)
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "obeys")
    fleet.end()
    client.says("Stop", number=1)
    client.says("Stop", background_tasks=[1, 2])
    spool = fleet.state / "spool"
    (path,) = spool.glob("*.client-event.bob.*.json")
    report = json.loads(path.read_bytes())
    for number in range(1000):
        said = {"hook_event_name": "Notification", "message": str(number)}
        encoded = base64.b64encode(json.dumps(said).encode()).decode()
        flood = spool / f"{number:020d}-1.client-event.bob.json"
        flood.write_text(json.dumps({**report, "hook": "Notification", "payload": encoded}))
        os.utime(flood, (number + 1.0, number + 1.0))
    unfinished = [spool / f".{number}-1.client-event.bob.1.2.Stop.json.tmp" for number in (1, 2)]
    for left, at in zip(unfinished, (1.0, time.time()), strict=True):
        left.touch()
        os.utime(left, (at, at))
    fleet.start()
    fleet.await_up("bob")
    wait_for("the reports are taken in", lambda: not list(spool.glob("*.json")))
    found = client.pushed()
    assert (found["Stop"]["background_tasks"], found["Notification"]["message"]) == (2, "999")
    assert fleet.view("bob")["pid"] == view["pid"]
    assert [left.exists() for left in unfinished] == [False, True], "a reporter may be at work on it"
    assert not list(spool.glob("*.bad"))
