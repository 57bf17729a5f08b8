"""What agents do, on a real fleet: from what their clients write, by the plugin and circusd, to the fleet."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from typing import Any

from circus_failover import agent_health, process_table
from circus_failover.agent_health import Look
from circus_failover.policy.health import Fault, Health
from circus_failover.words import FaultKind, Source, State
from tests.clients.accounts import CLAUDE_SHARED, make_claude_home
from tests.live.fleet import Events, Fleet, wait_for
from tests.live.with_plugins import NEVER, await_said, restarted, with_reaper

WAITING = Health(State.WAITING, Source.STATUS_FILE, 5.0, "permission: Bash", evidence="status-file: waiting")
LIMITED = Health(
    State.LIMITED,
    Source.TRANSCRIPT,
    6.0,
    fault=Fault(FaultKind.USAGE_LIMIT, "You've hit your limit", "5-hour", time.time() + 600),
    evidence="transcript: usage_limit_reached",
)


def say(fleet: Fleet, *looks: object, interval: object = 2.0) -> dict[str, Any]:
    return fleet.call("seen", interval=interval, agents=list(looks))


def look_at(view: dict[str, Any], health: Health | None, **changes: Any) -> dict[str, Any]:
    process = process_table.identify(view["pid"])
    assert process is not None
    made = agent_health.told(Look(view["identity"], view["generation"], process, time.time(), health))
    return {**made, **changes}


def test_what_circusd_is_told_is_shown_logged_and_remembered_and_nonsense_is_refused(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("bravo")
    fleet.agent("forgotten")
    fleet.start()
    alpha, bravo, forgotten = fleet.await_up("alpha", "bravo", "forgotten")
    good = look_at(alpha, WAITING, conversation="the-users-own")
    for bad in ({**good, "at": "now"}, {**good, "health": {}}, "alpha", None, {}):
        answer = say(fleet, good, bad)
        assert answer["status"] == "error" and "agents[1]" in answer["reason"], answer
    for interval in (None, 0, -1, "2", True, 1e9):
        assert "interval" in say(fleet, good, interval=interval)["reason"]
    assert say(fleet)["status"] == "ok" and fleet.call("seen", interval=2.0)["status"] == "error"
    assert fleet.view("alpha")["state"] == "unknown", "nothing of all that was taken"

    stale = look_at(bravo, LIMITED, generation=0)
    with Events(fleet) as events:
        answer = say(fleet, good, stale, look_at(bravo, None), interval=600)
        assert answer["again"] == ["bravo"]
        events.await_one("watcher.alpha.agent", lambda message: message["state"] == "waiting")
    view = fleet.view("alpha")
    assert (view["state"], view["state_what"]) == ("waiting", "permission: Bash")
    assert view["conversation"] == "the-users-own" and fleet.view("bravo")["state"] == "unknown"
    assert fleet.launches("alpha")[0].conversation == "the-users-own"
    say(fleet, look_at(bravo, LIMITED), interval=600)
    reaper = {"names": ["alpha"], "parked_by": "idle-reaper", "generation": 1, "idle_since": time.time() + 60}
    refused = fleet.call("park", **reaper)
    assert refused["status"] == "error" and "it is waiting" in refused["reason"], refused

    table = fleet.ctl("fleet").out
    until = time.strftime("%H:%M", time.localtime(LIMITED.fault.resets_at if LIMITED.fault else 0))
    assert "waiting: permission: Bash" in table and f"limited until {until}" in table
    told = fleet.ctl("explain", "bravo").out
    assert "transcript: usage_limit_reached" in told and "usage-limit (5-hour), until" in told
    assert "You've hit your limit" in told
    lines = [line for line in fleet.lifecycle() if line["ev"] in ("state", "conversation")]
    assert [(line["ev"], line["identity"]) for line in lines] == [
        ("state", "alpha"),
        ("conversation", "alpha"),
        ("state", "bravo"),
    ]
    assert "permission: Bash" in fleet.ctl("history", "alpha").out

    # A question is open there: what is typed would answer it.
    assert fleet.call("wake", name="alpha", task="choose 1")["status"] == "ok"
    fleet.await_ticks()
    with fleet.store() as store:
        (task,) = store.tasks("alpha")
    assert (task.state, task.attempts) == ("queued", 0)
    say(fleet, look_at(alpha, Health(State.IDLE, Source.STATUS_FILE, 7.0)), interval=600)
    fleet.await_screen("alpha", "done: choose 1")
    say(fleet, look_at(alpha, WAITING), interval=600)

    with Events(fleet) as events:
        nearly = agent_health.SLACK_SECS - 1.0
        say(fleet, look_at(forgotten, WAITING, at=time.time() - nearly), interval=0.01)
        events.await_one("watcher.forgotten.agent", lambda message: message["state"] == "unknown")
        assert [event["state"] for event in events.of("watcher.forgotten.agent")] == ["waiting", "unknown"]

    fleet.end()
    fleet.start()
    fleet.await_up("alpha", "bravo")
    assert fleet.view("alpha")["state"] == "waiting" and fleet.view("bravo")["state"] == "limited"
    assert say(fleet, look_at(alpha, None, at=time.time() - 60))["again"] == []
    view = fleet.view("alpha")
    assert view["state"] == "unknown" and "not looked at since" in view["state_evidence"]


CLIENT = f"""#!{sys.executable}
# Says what it does where Claude Code 2.1.329 says it, and then nothing more: a test goes on saying it.
import json, os, sys, time
start = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
words = sys.argv[1:]
asked = next(word for name, word in zip(words, words[1:]) if name in ("--session-id", "--resume"))
said = {{"pid": os.getpid(), "sessionId": asked, "cwd": os.getcwd(), "startedAt": int(time.time() * 1000),
        "procStart": start, "version": "2.1.329", "kind": "interactive", "status": "idle",
        "statusUpdatedAt": int(time.time() * 1000)}}
folder = os.path.join(os.environ["CLAUDE_CONFIG_DIR"], "sessions")
os.makedirs(folder, exist_ok=True)
path = os.path.join(folder, f"{{os.getpid()}}.json")
with open(path + ".new", "w") as file:
    json.dump(said, file)
os.rename(path + ".new", path)
for line in sys.stdin:
    pass
"""


class Clients:
    """A fleet of agents of the runtime `claude` whose client does what the test says."""

    def __init__(self, fleet: Fleet, *names: str, **options: str) -> None:
        self.fleet = fleet
        self.home = make_claude_home(fleet.folder / "one", "one", "http://127.0.0.1:1", [fleet.work])
        program = fleet.folder / "client"
        program.write_text(CLIENT)
        program.chmod(0o700)
        account = {"name": "one", "runtime": "claude", "home": str(self.home.folder)}
        fleet.settings.update(accounts=[account], shared={"root": str(fleet.folder / "shared")})
        self.home.link(fleet.folder / "shared", CLAUDE_SHARED)
        for name in names:
            fleet.agent(
                name,
                failover__runtime="claude",
                failover__command=str(program),
                failover__account="one",
                **options,
            )

    def does(self, name: str, status: str, **more: Any) -> None:
        """Let an agent's client say this of itself, since now."""
        view = self.fleet.view(name)
        path = self.home.folder / "sessions" / f"{view['pid']}.json"
        before, now = json.loads(path.read_text()), int(time.time() * 1000)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({**before, "status": status, "statusUpdatedAt": now, **more}))
        new.rename(path)

    def await_state(self, name: str, state: str) -> dict[str, Any]:
        """Wait until circusd shows an agent in a state, and return its view."""

        def look() -> dict[str, Any] | None:
            view = self.fleet.view(name)
            return view if view["state"] == state else None

        return wait_for(f"{name} is {state}", look)


def test_what_a_client_writes_is_shown_at_once_when_it_is_up_and_when_something_happens(fleet: Fleet) -> None:
    clients = Clients(fleet, "alpha")
    fleet.states(interval=NEVER)
    fleet.start()
    fleet.await_up("alpha")
    view = clients.await_state("alpha", "idle")
    assert view["state_source"] == "status-file"
    clients.does("alpha", "waiting", waitingFor="permission prompt")
    os.kill(fleet.keeper("alpha"), signal.SIGKILL)  # circusd tells about its end and its successor
    view = clients.await_state("alpha", "waiting")
    assert "permission" in view["state_what"]
    restarted(fleet, "plugin:states", "AgentStates")
    own = str(uuid.uuid4())
    clients.does("alpha", "busy", sessionId=own)
    restarted(fleet, "plugin:states", "AgentStates")
    view = clients.await_state("alpha", "working")
    wait_for("its conversation is recorded", lambda: fleet.view("alpha")["conversation"] == own)
    assert fleet.launches("alpha")[0].conversation == own
    assert fleet.ctl("park", "alpha", "--waiting").code == 0
    with fleet.store() as store:
        row = store.agent("alpha")
    assert row is not None and row.parked_conversation == own
    assert fleet.view("alpha")["state"] is None


def test_an_agent_is_parked_only_when_its_client_says_that_it_is_idle(fleet: Fleet) -> None:
    clients = Clients(fleet, "busy", "asking", "idle", failover__idle_secs="1")
    with_reaper(fleet)
    fleet.start()
    views = fleet.await_up("busy", "asking", "idle")
    clients.does("busy", "busy")
    clients.does("asking", "waiting", waitingFor="permission prompt")
    for view in views:
        terminal = process_table.terminal(view["pid"])
        assert terminal is not None
        os.utime(terminal, (1.0, 1.0))  # quiet for long, and nobody but the client knows better
    fleet.await_phase("idle", "parked")
    await_said(fleet, "busy", outcome="busy", evidence="it was seen to be working")
    await_said(fleet, "asking", outcome="busy", evidence="seen to be waiting: status-file")
    assert fleet.view("busy")["phase"] == fleet.view("asking")["phase"] == "up"
    clients.does("busy", "idle")
    fleet.await_phase("busy", "parked")
