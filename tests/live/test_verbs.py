"""The verbs as scripts, plugins and Circus's own tools use them: fields, events, and turns that queue."""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.fleet import Events, Fleet, alive, wait_for

NUMBER = (int, float)
FIELDS: dict[str, tuple[type, ...]] = {
    "identity": (str,),
    "phase": (str,),
    "state": (str, type(None)),
    "reason": (str, type(None)),
    "cause": (str, type(None)),
    "runtime": (str, type(None)),
    "account": (str, type(None)),
    "pool": (str, type(None)),
    "mode": (str, type(None)),
    "restart": (str, type(None)),
    "generation": (int,),
    "pid": (int, type(None)),
    "session": (str, type(None)),
    "socket": (str, type(None)),
    "server_pid": (int, type(None)),
    "since": (*NUMBER, type(None)),
    "last_activity": (*NUMBER, type(None)),
    "assignment": (str, dict, type(None)),
}
PHASES = {"starting", "up", "stopping", "parked", "down", "held", "refused", "stopped", "observed"}
STATES = {"idle", "working", "waiting", "limited", "stuck", "wedged", "unknown", None}


def check(agent: dict[str, Any]) -> None:
    """Assert that an agent's object has every field of the right type."""
    for field, types in FIELDS.items():
        assert field in agent, field
        assert isinstance(agent[field], types) and not isinstance(agent[field], bool), (field, agent[field])
    assert agent["phase"] in PHASES
    assert agent["state"] in STATES


class TestFields:
    """What `--json` prints is an interface: fields are added, never renamed."""

    def test_fleet_has_every_field_for_agents_in_every_condition(self, fleet: Fleet) -> None:
        (fleet.folder / "home").mkdir(mode=0o700)
        fleet.settings["accounts"] = [{"name": "one", "home": "home"}]
        fleet.settings["shared"] = {"root": "home", "links": []}
        fleet.agent("up", failover__account="one", failover__pool="blue", failover__restart="lazy")
        fleet.agent("never", autostart="False")
        fleet.agent("wrong", failover__restrat="lazy")
        fleet.agent("stopped")
        fleet.agent("seen", failover__mode="observe", failover__command="")
        begun = time.time()
        fleet.start()
        fleet.await_up("up", "stopped")
        assert fleet.ctl("stop", "stopped", "--waiting").code == 0
        printed = fleet.ctl("--json", "fleet")
        assert printed.code == 0
        answer = printed.json()
        assert (answer["status"], isinstance(answer["time"], float)) == ("ok", True)
        agents = {agent["identity"]: agent for agent in answer["agents"]}
        assert list(agents) == sorted(agents)
        assert set(agents) == {"up", "never", "wrong", "stopped", "seen"}
        for agent in agents.values():
            check(agent)

        up = agents["up"]
        assert (up["account"], up["pool"], up["restart"], up["mode"], up["runtime"]) == (
            *("one", "blue", "lazy", "manage"),
            "command",
        )
        assert (up["phase"], up["state"], up["generation"], up["session"]) == ("up", "unknown", 1, "up")
        assert up["socket"] == str(fleet.socket("up"))
        assert begun - 1 < up["since"] < time.time() + 1
        assert abs(up["last_activity"] - time.time()) < 60
        assert alive(up["pid"])
        assert alive(up["server_pid"])
        assert up["assignment"] is None
        for name in ("never", "wrong", "stopped", "seen"):
            for field in ("pid", "server_pid", "last_activity", "state", "account"):
                assert agents[name][field] is None, (name, field)
        assert agents["stopped"]["since"] > up["since"]

        some = fleet.ctl("--json", "fleet", "up", "never").json()
        assert [agent["identity"] for agent in some["agents"]] == ["never", "up"]
        nobody = fleet.ctl("--json", "fleet", "stoped")
        assert nobody.code == 3
        assert "did you mean 'stopped'" in nobody.err

    def test_explain_and_history_use_the_same_words(self, fleet: Fleet) -> None:
        fleet.agent("alpha")
        fleet.start()
        fleet.await_up("alpha")
        assert fleet.ctl("restart", "alpha").code == 0
        fleet.await_up("alpha")
        explained = fleet.ctl("--json", "explain", "alpha").json()
        check(explained["agent"])
        assert explained["agent"] == {
            **fleet.view("alpha"),
            "last_activity": explained["agent"]["last_activity"],
        }
        assert [launch["generation"] for launch in explained["launches"]] == [2, 1]
        assert explained["launches"][1]["end_cause"] == "operator-restart"
        assert explained["launches"][1]["planned"] is True
        assert explained["launches"][0]["ended_at"] is None
        assert explained["intent"]["intent"] == "restart"
        assert explained["intent"]["who"].endswith("@failoverctl")
        assert explained["start_would"]["action"] == "adopt"
        assert explained["gate"] == "ok"

        history = fleet.ctl("--json", "history", "alpha").json()
        assert history["identity"] == "alpha"
        for entry in history["history"]:
            assert {"at", "generation", "ev", "phase"} <= entry.keys()
            assert entry["phase"] in PHASES
        events = [entry["ev"] for entry in reversed(history["history"])]
        assert [ev for ev in events if ev in ("launch", "up", "restart")] == [
            *("launch", "up", "restart", "launch", "up")
        ]
        assert len(fleet.ctl("--json", "history", "alpha", "--limit", "2").json()["history"]) == 2
        assert fleet.ctl("history", "alpha", "--limit", "0").code == 2
        assert fleet.ctl("explain", "alhpa").code == 3

    def test_a_plain_watcher_is_no_agent_and_says_what_is_missing(self, fleet: Fleet) -> None:
        fleet.agent("alpha")
        fleet.watcher("plain", "sleep 3600")
        fleet.start()
        refused = fleet.ctl("explain", "plain")
        assert refused.code == 3
        assert "hooks.before_start = circus_failover.hooks.enrol" in refused.err
        assert [agent["identity"] for agent in fleet.call("fleet")["agents"]] == ["alpha"]


def test_circuss_own_verbs_work_on_agents(fleet: Fleet) -> None:
    """By plain circusctl: what failoverctl does beyond it, the other tests here do."""
    program = "circusctl"
    fleet.agent("alpha", failover__pool="blue")
    fleet.watcher("plain", "sleep 3600")
    fleet.start()
    fleet.await_up("alpha")
    assert "alpha: active" in fleet.ctl("status", program=program).out
    assert "active" in fleet.ctl("status", "alpha", program=program).out
    assert {"alpha", "plain"} <= set(fleet.ctl("list", program=program).out.strip().split(","))
    assert str(fleet.keeper("alpha")) in fleet.ctl("list", "alpha", program=program).out
    assert "2" in fleet.ctl("numwatchers", program=program).out
    assert "1" in fleet.ctl("numprocesses", "alpha", program=program).out
    assert "failover.pool" in fleet.ctl("options", "alpha", program=program).out
    assert "failover-session" in fleet.ctl("get", "alpha", "cmd", program=program).out
    got = fleet.ctl("get", "alpha", "failover.pool", "warmup_delay", program=program)
    assert sorted(got.out.splitlines()) == ["failover.pool: blue", "warmup_delay: 0"]
    assert fleet.ctl("get", "alpha", "failover.nothing", program=program).code == 3
    assert "alpha" in fleet.ctl("stats", program=program).out
    assert fleet.ctl("dstats", program=program).code == 0
    assert fleet.ctl("globaloptions", program=program).code == 0
    stopped = fleet.ctl("stop", "alpha", "--waiting", program=program)
    assert stopped.code == 0, stopped
    assert fleet.view("alpha")["phase"] == "stopped"
    assert "stopped" in fleet.ctl("status", "alpha", program=program).out
    assert fleet.ctl("start", "alpha", program=program).code == 0
    fleet.await_up("alpha")
    assert fleet.ctl("restart", "alpha", program=program).code == 0
    (view,) = fleet.await_up("alpha")
    assert view["generation"] == 3
    assert fleet.ctl("stop", "plain", "--waiting", program=program).code == 0
    assert fleet.ctl("start", "plain", program=program).code == 0
    fleet.await_watcher("plain", "active")
    unknown = fleet.ctl("stop", "alhpa", program=program)
    assert unknown.code == 3
    assert "alhpa" in unknown.err + unknown.out


def test_every_change_of_phase_is_published(fleet: Fleet) -> None:
    fleet.agent("alpha", autostart="False")
    fleet.start()
    with Events(fleet) as events:
        assert fleet.ctl("start", "alpha").code == 0
        (view,) = fleet.await_up("alpha")
        assert fleet.ctl("stop", "alpha", "--waiting").code == 0
        assert fleet.ctl("start", "alpha").code == 0
        (view,) = fleet.await_up("alpha")
        os.kill(view["pid"], signal.SIGKILL)
        events.await_one("watcher.alpha.agent", lambda event: event["cause"] == "signaled")
        seen = events.of("watcher.alpha.agent")
    for event in seen:
        assert {"time", "identity", "generation", "phase", "state", "cause"} <= event.keys()
        assert event["identity"] == "alpha"
        assert event["phase"] in PHASES
        assert event["state"] in STATES
    phases: list[tuple[str, int]] = []
    for event in seen:
        now = (event["phase"], event["generation"])
        if not phases or phases[-1] != now:
            phases.append(now)
    expected = [("starting", 1), ("up", 1), ("stopping", 1), ("stopped", 1)]
    second = [("starting", 2), ("up", 2), ("down", 2)]
    assert [phase for phase in phases if phase != ("down", 1)] == [*expected, *second]
    assert seen[0]["cause"] == "first-start"
    assert next(event for event in seen if event["phase"] == "up")["state"] == "unknown"
    assert [event["time"] for event in seen] == sorted(event["time"] for event in seen)


def slow(fleet: Fleet, graceful_timeout: str) -> None:
    """Add a watcher whose process takes no SIGTERM from when it is `deaf`."""
    program = f"trap '' TERM; : > {fleet.folder}/deaf; while :; do sleep 0.2; done"
    fleet.watcher("slow", f'/bin/sh -c "{program}"', graceful_timeout=graceful_timeout)


def deaf(fleet: Fleet) -> None:
    wait_for("slow is deaf", (fleet.folder / "deaf").exists)
    fleet.await_watcher("slow", "active")


class TestTurns:
    """A running command makes others wait; it never makes them fail."""

    @pytest.mark.parametrize("program", ["failoverctl", "circusctl"])
    def test_agents_queue_behind_a_slow_stop_of_another_watcher(self, fleet: Fleet, program: str) -> None:
        slow(fleet, "3")
        for name in ("alpha", "beta"):
            fleet.agent(name)
        fleet.agent("gamma", autostart="False")
        fleet.start()
        was_alpha, was_beta = fleet.await_up("alpha", "beta")
        deaf(fleet)
        assert fleet.call("stop", name="slow")["status"] == "ok"
        with ThreadPoolExecutor(3) as pool:
            stopped = pool.submit(fleet.ctl, "stop", "alpha", "--waiting", program=program)
            restarted = pool.submit(fleet.ctl, "restart", "beta", program=program)
            started = pool.submit(fleet.ctl, "start", "gamma", program=program)
            for result in (stopped.result(), restarted.result(), started.result()):
                assert "already running" not in result.out + result.err
                assert result.code == 0, result
        assert not alive(was_alpha["pid"])
        assert not alive(was_beta["pid"])
        fleet.await_up("beta", "gamma")
        assert fleet.view("beta")["generation"] == 2
        fleet.await_phase("alpha", "stopped")

    def test_verbs_that_only_show_do_not_wait(self, fleet: Fleet) -> None:
        slow(fleet, "60")
        fleet.agent("alpha")
        fleet.start()
        fleet.await_up("alpha")
        deaf(fleet)
        assert fleet.call("stop", name="slow")["status"] == "ok"
        for verb, options in (("fleet", {}), ("explain", {"name": "alpha"}), ("history", {"name": "alpha"})):
            assert fleet.call(verb, **options)["status"] == "ok"
        assert fleet.call("status", name="slow")["status"] == "stopping"

    def test_a_sigterm_meanwhile_is_not_lost(self, fleet: Fleet) -> None:
        slow(fleet, "3")
        fleet.agent("alpha")
        fleet.start()
        (was,) = fleet.await_up("alpha")
        deaf(fleet)
        assert fleet.call("stop", name="slow")["status"] == "ok"
        assert fleet.end(signal.SIGTERM, timeout=12) == 0
        assert alive(was["pid"])

    def test_a_crowd_of_verbs_is_served(self, fleet: Fleet) -> None:
        names = [f"agent{number}" for number in range(6)]
        for name in names:
            fleet.agent(name)
        fleet.start()
        before = {view["identity"]: view for view in fleet.await_up(*names)}
        with ThreadPoolExecutor(12) as pool:
            verbs = [pool.submit(fleet.call, "restart", name=name, waiting=True) for name in names]
            verbs += [pool.submit(fleet.call, "reload", waiting=True) for _ in range(3)]
            verbs += [pool.submit(fleet.call, "reloadconfig") for _ in range(3)]
            answers = [verb.result(60) for verb in verbs]
        assert [answer.get("reason") for answer in answers if answer["status"] != "ok"] == []
        for view in fleet.await_up(*names):
            assert view["generation"] == before[view["identity"]]["generation"] + 1
            assert not alive(before[view["identity"]]["pid"])


@pytest.fixture
def path_without_tmux(fleet: Fleet) -> str:
    """Return a PATH on which there is everything but tmux."""
    folder = fleet.folder / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "sleep", "env", "head", "wc", "mv", "ls"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)


class TestWithoutTmux:
    """tmux is not installed: agents are refused with that reason, and circusd runs."""

    def test_agents_are_refused_and_circusd_answers(self, fleet: Fleet, path_without_tmux: str) -> None:
        fleet.agent("alpha")
        fleet.agent("beta", autostart="False")
        fleet.watcher("plain", "/bin/sleep 3600")
        fleet.start(PATH=path_without_tmux)
        view = fleet.await_phase("alpha", "refused")
        assert view["cause"] == "tmux-missing"
        assert "tmux is not installed" in view["reason"]
        refused = fleet.ctl("start", "beta")
        assert refused.code == 3
        assert "tmux is not installed" in refused.err
        fleet.await_watcher("plain", "active")
        assert "tmux is not installed" in fleet.ctl("explain", "alpha").out

    def test_live_agents_are_still_shown_and_not_taken_in_again_and_again(
        self, fleet: Fleet, path_without_tmux: str
    ) -> None:
        fleet.agent("alpha")
        fleet.start()
        (was,) = fleet.await_up("alpha")
        fleet.end(signal.SIGKILL)
        fleet.start(PATH=path_without_tmux)
        view = fleet.await_phase("alpha", "up")
        assert (view["pid"], view["generation"]) == (was["pid"], 1)
        said = len(fleet.lifecycle())
        fleet.await_ticks(3)
        assert len(fleet.lifecycle()) == said
        assert fleet.view("alpha")["phase"] == "up"
        assert fleet.ctl("stop", "alpha", "--waiting").code == 0
        assert not alive(was["pid"])
        fleet.end(signal.SIGTERM)
        fleet.start()
        assert fleet.view("alpha")["phase"] == "stopped"
        wait_for("it starts again", lambda: fleet.ctl("start", "alpha").code == 0)
        fleet.await_up("alpha")
