"""Begun afresh, by an operator or by the agent itself: once, its first prompt first, and never in a loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.live.fleet import BIN, STANDIN, Fleet, alive, wait_for

REQUESTS = ("fresh", "park", "stop")
PROMPT = {"failover__initial_prompt": "read your notes"}


def environment_of(fleet: Fleet, name: str) -> dict[str, str]:
    """Return the environment of an agent's own process, as everything that it starts inherits it."""
    pid = fleet.view(name)["pid"]

    def given() -> dict[str, str] | None:
        # The shell that becomes the agent has the agent's pid, and none of its variables yet.
        entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
        found = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        return found if "FAILOVER_LAUNCH" in found else None

    return wait_for(f"{name} has its variables", given)


def ask(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `failoverctl self` with this environment."""
    return subprocess.run(
        [str(BIN / "failoverctl"), "self", *arguments],
        env={**environment, "FAILOVER_TEST_FLEET": "none"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
        cwd="/",
    )


def granted(done: subprocess.CompletedProcess[str], words: str = "under way") -> None:
    """Assert that a request was stored; what carries a launch's name may well be ended with that launch."""
    assert done.returncode in (0, -signal.SIGTERM) and words in done.stdout, done


def refused(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """Assert that a request failed with one line that says why."""
    assert done.returncode == code, done
    assert words in done.stderr and "Traceback" not in done.stderr, done
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == "", done


def followed(fleet: Fleet, name: str, generation: int) -> dict[str, Any]:
    """Wait until an agent is up in a generation, and assert that it stays that one."""
    wait_for(f"generation {generation}", lambda: fleet.view(name)["generation"] == generation)
    (view,) = fleet.await_up(name)
    fleet.await_ticks(2)
    assert fleet.view(name)["generation"] == generation
    return view


def breakable(fleet: Fleet) -> dict[str, str]:
    """Return the options of a stand-in that fails before it is up while the file `broken` is there."""
    script = fleet.work / "agent.sh"
    script.write_text(f"[ -e {fleet.work / 'broken'} ] && exit 9\nexec {STANDIN}\n")
    return {"failover__command": f"/bin/sh {script}", "failover__ready_match": "standin ready"}


class TestFresh:
    def test_it_ends_and_begins_anew_at_once_with_its_first_prompt_before_all_else(
        self, fleet: Fleet
    ) -> None:
        fleet.resumable("bob", **PROMPT)
        fleet.start()
        first = fleet.begun("bob")
        fleet.converse("bob")
        pid = fleet.view("bob")["pid"]
        fleet.type("bob", "/work 600 on something")
        fleet.await_screen("bob", "working")
        answers = fleet.call_all(
            {"command": "fresh", "name": "bob", "by": "ann@desk", "waiting": True},
            {"command": "wake", "name": "bob", "task": "then this", "waiting": True},
        )
        assert answers[0]["status"] == "ok", answers
        assert (answers[0]["agents"][0]["phase"], answers[0]["agents"][0]["generation"]) == ("up", 2)
        assert not alive(pid)
        launch, ended = fleet.begun("bob"), fleet.launches("bob")[1]
        assert (launch.mode, launch.wake_cause, launch.parked_by) == ("fresh", "fresh-requested", None)
        assert (launch.asked_by, launch.conversation != first.conversation) == ("ann@desk", True)
        assert (ended.planned, ended.end_cause) == (True, "fresh")
        fleet.await_screen("bob", "done: then this")
        assert fleet.prompts(launch.conversation) == ["read your notes", "then this"]
        (said,) = [line for line in fleet.lifecycle() if line["ev"] == "supervise"]
        assert (said["action"], said["outcome"]) == ("eager-fresh", "fresh-next-wake")
        assert fleet.exits() == []
        # A crash afterwards is a crash: nothing of the fresh launch is left to be carried out again.
        wait_for("it is known to have taken both", lambda: fleet.call("tasks")["tasks"] == [])
        os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
        fleet.await_phase("bob", "down")
        assert fleet.ctl("wake", "bob").code == 0
        again = fleet.begun("bob")
        assert again.wake_cause == "crash-or-self-close"
        fleet.converse("bob")
        assert fleet.prompts(again.conversation) == ["hello"]

    def test_it_brings_up_what_is_down_or_parked_and_refuses_what_was_stopped(self, fleet: Fleet) -> None:
        for name in ("never", "parked", "crashed", "stopped"):
            fleet.resumable(name, autostart=str(name != "never"), **PROMPT)
        fleet.start()
        fleet.await_up("parked", "crashed", "stopped")
        fleet.converse("parked")
        fleet.call("park", name="parked", waiting=True)
        fleet.call("stop", name="stopped", waiting=True)
        os.kill(fleet.view("crashed")["pid"], signal.SIGKILL)
        fleet.await_phase("crashed", "down")
        done = fleet.ctl("fresh", "never", "parked", "crashed")
        assert done.code == 0, done
        for name in ("never", "parked", "crashed"):
            launch = fleet.begun(name)
            assert (launch.mode, launch.wake_cause) == ("fresh", "fresh-requested")
            fleet.await_screen(name, "done: read your notes")
            assert fleet.prompts(launch.conversation) == ["read your notes"]
        done = fleet.ctl("fresh", "stopped")
        assert done.code == 3 and "start stopped" in done.err, done
        assert fleet.view("stopped")["phase"] == "stopped"
        # The conversation that was parked is gone for good: a launch came after it.
        os.kill(fleet.view("parked")["pid"], signal.SIGKILL)
        fleet.await_phase("parked", "down")
        assert fleet.ctl("wake", "parked").code == 0
        assert fleet.begun("parked").mode == "fresh"

    def test_it_does_not_loop_when_it_fails(self, fleet: Fleet) -> None:
        """What follows is the restart policy's: nothing for `lazy`, paced and held for `always`."""
        for restart in ("lazy", "always"):
            fleet.resumable(restart, failover__restart=restart, **breakable(fleet), **PROMPT)
        fleet.guard(interval="1")
        fleet.start()
        fleet.await_up("lazy", "always")
        (fleet.work / "broken").touch()
        done = fleet.ctl("fresh", "lazy", "always")
        assert done.code == 3 and done.err.count("exit status 9") == 2, done
        fleet.await_phase("always", "held")
        causes = [launch.wake_cause for launch in reversed(fleet.launches("always"))]
        assert causes == ["first-wake", "fresh-requested", *["crash-or-self-close"] * 2]
        assert (fleet.view("lazy")["phase"], len(fleet.launches("lazy"))) == ("down", 2)
        (fleet.work / "broken").unlink()
        assert fleet.ctl("wake", "lazy").code == 0
        launch = fleet.begun("lazy")
        # The failed one was the one launch that was asked for; its prompt still waits for a launch.
        assert launch.wake_cause == "crash-or-self-close"
        fleet.await_screen("lazy", "done: read your notes")
        assert fleet.prompts(launch.conversation) == ["read your notes"]

    def test_nothing_is_ended_that_could_not_be_brought_back(self, fleet: Fleet) -> None:
        folder = fleet.folder / "tree"
        folder.mkdir()
        fleet.agent("bob", working_dir=str(folder))
        fleet.start()
        (view,) = fleet.await_up("bob")
        # Before that it is still looking for its own files, and ends when its folder is gone.
        fleet.await_screen("bob", "standin ready")
        folder.rmdir()
        done = fleet.ctl("fresh", "bob")
        assert done.code == 3 and "nothing was ended" in done.err, done
        assert alive(view["pid"]) and fleet.view("bob")["phase"] == "up"

    def test_a_fresh_launch_that_never_was_ready_keeps_the_park(self, fleet: Fleet) -> None:
        folder, moved = fleet.folder / "tree", fleet.folder / "moved"
        folder.mkdir()
        fleet.resumable("gate", working_dir=str(folder))
        fleet.resumable("boot", **breakable(fleet))
        fleet.start()
        first = {name: fleet.begun(name) for name in ("gate", "boot")}
        for name in first:
            fleet.converse(name)
        fleet.call("park", names=list(first), waiting=True)
        (fleet.work / "broken").touch()
        folder.rename(moved)
        assert fleet.ctl("fresh", "gate", "boot").code == 3
        assert [fleet.view(name)["parked_by"] for name in first] == ["park", "park"]
        (fleet.work / "broken").unlink()
        moved.rename(folder)
        assert fleet.ctl("wake", "gate", "boot").code == 0
        for name, begun in first.items():
            launch = fleet.begun(name)
            assert (launch.wake_cause, launch.conversation) == ("idle-reaped-resume", begun.conversation)

    def test_requests_that_come_together_are_one_launch_and_one_prompt(self, fleet: Fleet) -> None:
        fleet.agent("bob", **PROMPT)
        fleet.start()
        fleet.await_up("bob")
        environment = environment_of(fleet, "bob")
        asked: dict[str, Any] = {
            "identity": "bob",
            "what": "fresh",
            "generation": 1,
            "launch": environment["FAILOVER_LAUNCH"],
        }
        answers = fleet.call_all(
            {"command": "fresh", "name": "bob", "waiting": True},
            {"command": "self-request", **asked},
            {"command": "fresh", "name": "bob", "waiting": True},
        )
        assert [answer["status"] for answer in answers] == ["ok"] * 3
        followed(fleet, "bob", 2)
        fleet.await_screen("bob", "done: read your notes")
        assert fleet.prompts(fleet.begun("bob").conversation) == ["read your notes"]
        # One that is still booting is ended, too, and its prompt is not told twice.
        fleet.agent("bob", failover__ready_match="never shown", failover__boot_secs="60", **PROMPT)
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        fleet.call_all({"command": "fresh", "name": "bob"}, timeout=0)
        wait_for("it boots", lambda: fleet.view("bob")["generation"] == 3 and fleet.view("bob")["pid"])
        fleet.agent("bob", **PROMPT)
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        fleet.call("fresh", name="bob", waiting=True)
        (view,) = fleet.await_up("bob")
        fleet.await_screen("bob", "done: read your notes")
        wait_for("it is known to have taken it", lambda: fleet.call("tasks")["tasks"] == [])
        assert fleet.prompts(fleet.begun("bob").conversation) == ["read your notes"]
        assert view["generation"] in (3, 4), "the pattern was taken out while it booted: it may have been up"

    def test_a_stop_that_comes_during_it_wins(self, fleet: Fleet) -> None:
        fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="0.7", **PROMPT)
        fleet.start()
        fleet.await_up("bob")
        fleet.await_screen("bob", "standin ready")
        begun, stopped = fleet.call_all(
            {"command": "fresh", "name": "bob", "waiting": True},
            {"command": "stop", "name": "bob", "waiting": True},
        )
        assert (begun["status"], stopped["status"]) == ("error", "ok")
        view = fleet.view("bob")
        assert (view["phase"], view["generation"], view["cause"]) == ("stopped", 1, "operator-stop")
        assert fleet.call("tasks")["tasks"] == []


class TestSelf:
    """An agent about itself, by the environment of its launch."""

    def test_an_agent_asks_from_inside_its_own_session(self, fleet: Fleet) -> None:
        """Not from a test's shell: the program that the agent runs is ended together with it."""
        for what in REQUESTS:
            script, asked = fleet.work / f"{what}.sh", fleet.work / f"{what}.asked"
            script.write_text(
                f"if [ ! -e {asked} ]; then\n  sleep 0.4\n  touch {asked}\n"
                f"  {BIN / 'failoverctl'} self {what}\n  sleep 600\nfi\nexec {STANDIN}\n"
            )
            fleet.agent(what, failover__command=f"/bin/sh {script}", **PROMPT)
        fleet.start()
        followed(fleet, "fresh", 2)
        launch = fleet.begun("fresh")
        assert (launch.wake_cause, launch.asked_by) == ("fresh-requested", "the agent itself")
        fleet.await_screen("fresh", "done: read your notes")
        for name, phase, by in (("park", "parked", "self"), ("stop", "stopped", "operator-stop")):
            view = fleet.await_phase(name, phase)
            assert (view["generation"], view["parked_by"]) == (1, by)
            assert f"self {name}" in view["reason"]
            answer = fleet.call("wake", name=name, waiting=True)
            assert answer["status"] == ("ok" if name == "park" else "error")
        assert [fleet.launches(name)[-1].planned for name in REQUESTS] == [True] * 3
        assert fleet.exits() == []

    def test_only_the_recorded_launch_may_ask(self, fleet: Fleet) -> None:
        fleet.agent("bob")
        fleet.agent("eve")
        fleet.start()
        fleet.await_up("bob", "eve")
        older, other = environment_of(fleet, "bob"), environment_of(fleet, "eve")
        assert fleet.ctl("restart", "bob").code == 0
        current = environment_of(fleet, "bob")
        for what in ("fresh", "park", "stop"):
            refused(ask(older, what), 3, "generation 2 is the recorded launch")
        mixed = {**current, "FAILOVER_LAUNCH": other["FAILOVER_LAUNCH"]}
        refused(ask(mixed, "stop"), 3, "of another launch that was generation 2, and generation 2 is")
        refused(ask({**current, "FAILOVER_GENERATION": "3"}, "stop"), 3, "generation 3")
        views = fleet.await_up("bob", "eve")
        assert [view["generation"] for view in views] == [2, 1]
        with fleet.store() as store:
            assert len(store.actions("bob")) == 1 and store.actions("eve") == []
        granted(ask(current, "park"))
        fleet.await_phase("bob", "parked")
        # And when it is gone, what it left behind decides nothing about its successor either.
        assert fleet.ctl("wake", "bob").code == 0
        refused(ask(current, "stop"), 3, "generation 3 is the recorded launch")
        assert fleet.await_up("bob")

    def test_an_operator_s_stop_is_not_undone_by_what_the_agent_asks(self, fleet: Fleet) -> None:
        fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="2")
        fleet.start()
        fleet.await_up("bob")
        environment = environment_of(fleet, "bob")
        fleet.await_screen("bob", "standin ready")
        fleet.call("stop", name="bob")
        ask(environment, "fresh")
        view = fleet.await_phase("bob", "stopped")
        assert (view["generation"], view["parked_by"]) == (1, "operator-stop")
        fleet.await_ticks()
        assert fleet.view("bob")["phase"] == "stopped"
        ask(environment, "fresh")
        fleet.await_ticks()
        assert fleet.view("bob")["phase"] == "stopped"

    def test_outside_of_an_agent_it_says_so(self, fleet: Fleet) -> None:
        names = ("FAILOVER_IDENTITY", "FAILOVER_GENERATION", "FAILOVER_LAUNCH")
        for missing in ((names[0],), (names[1],), (names[2],), names):
            environment = {"PATH": os.environ["PATH"], **dict.fromkeys(names, "1")}
            for name in missing:
                environment.pop(name)
            refused(ask(environment, "park"), 3, "inside an agent only")
        for arguments, near in ((["parc"], "park"), ([], "park"), (["park", "bob"], "park")):
            done = ask({"PATH": os.environ["PATH"], "FAILOVER_IDENTITY": "bob"}, *arguments)
            refused(done, 2, near)

    def test_no_value_in_the_environment_does_harm(self, fleet: Fleet) -> None:
        fleet.agent("bob")
        fleet.agent("eve")
        fleet.start()
        fleet.await_up("bob", "eve")
        good = environment_of(fleet, "bob")
        numbers = ("\u00b2", "9" * 5000, "9" * 20)
        names = ("../bob\nx\x1b[2J", "x" * 70000)
        launches = ("' OR 1=1 --\x1b]0;x\x07", "y" * 70000)
        for name, values in {"GENERATION": numbers, "IDENTITY": names, "LAUNCH": launches}.items():
            for value in values:
                done = ask({**good, f"FAILOVER_{name}": value}, "stop")
                assert done.returncode in (1, 3), (name, value[:50], done)
                assert "Traceback" not in done.stderr and "\x1b" not in done.stderr, (name, value[:50], done)
                assert len(done.stderr.strip().splitlines()) == 1, (name, value[:50], done)
        done = ask({**good, "FAILOVER_IDENTITY": os.fsdecode(b"b\xffb")}, "stop")
        assert done.returncode == 3 and "Traceback" not in done.stderr, done
        # Where it sends to is the operator's, and may be wrong as well.
        for endpoint in ("nonsense", "ipc:///nonexistent/x"):
            done = ask({**good, "CIRCUSCTL_ENDPOINT": endpoint, "FAILOVER_STATE_DIR": "/nonexistent"}, "stop")
            assert done.returncode in (1, 2, 3) and "Traceback" not in done.stderr, (endpoint, done)
        done = ask({**good, "FAILOVER_STATE_DIR": "\x1b[2J/../.."}, "stop")
        assert done.returncode in (1, 3) and "Traceback" not in done.stderr, done
        assert [view["generation"] for view in fleet.await_up("bob", "eve")] == [1, 1]
        assert not list((fleet.state / "spool").glob("*.json"))

    def test_a_message_that_makes_no_sense_is_refused_and_circusd_runs_on(self, fleet: Fleet) -> None:
        fleet.agent("bob")
        fleet.start()
        fleet.await_up("bob")
        good = {key: environment_of(fleet, "bob")[f"FAILOVER_{key}"] for key in ("GENERATION", "LAUNCH")}
        messages: list[dict[str, Any]] = [
            {},
            {"identity": "bob"},
            {"identity": "bob", "what": "stop", "generation": "one", "launch": good["LAUNCH"]},
            {"identity": "bob", "what": "stop", "generation": [1], "launch": good["LAUNCH"]},
            {"identity": "bob", "what": "stop", "generation": 1, "launch": None},
            {"identity": "bob", "what": "explode", "generation": 1, "launch": good["LAUNCH"]},
            {"identity": "bob", "what": ["stop"], "generation": 1, "launch": good["LAUNCH"]},
            {"identity": ["bob"], "what": "stop", "generation": 1, "launch": good["LAUNCH"]},
            {"identity": "bob", "what": "stop", "generation": 1e300, "launch": good["LAUNCH"]},
        ]
        for message in messages:
            answer = fleet.call("self-request", **message)
            assert answer["status"] == "error", (message, answer)
            assert "server error" not in answer["reason"], (message, answer)
        # The spool is open to all that the user runs: a report in it is no better than a message.
        for number, message in enumerate(messages):
            path = fleet.state / "spool" / f"{number:020d}-1-self.json"
            path.write_text(json.dumps({"kind": "self", **message}))
        wait_for("they are out of the way", lambda: not list((fleet.state / "spool").glob("*-self.json")))
        fleet.await_ticks()
        assert fleet.view("bob")["phase"] == "up"

    def test_with_circusd_down_it_waits_and_is_carried_out_once(self, fleet: Fleet) -> None:
        for what in REQUESTS:
            fleet.agent(what, **PROMPT)
        fleet.start()
        fleet.await_up(*REQUESTS)
        pids = [fleet.view(what)["pid"] for what in REQUESTS]
        environments = {what: environment_of(fleet, what) for what in REQUESTS}
        fleet.end(signal.SIGKILL)
        for what in (*REQUESTS, "fresh"):
            granted(ask(environments[what], what), "circusd is down")
        assert all(alive(pid) for pid in pids)
        assert len(list((fleet.state / "spool").glob("*-self.json"))) == 4
        fleet.start()
        followed(fleet, "fresh", 2)
        launch = fleet.begun("fresh")
        assert launch.wake_cause == "fresh-requested"
        fleet.await_screen("fresh", "done: read your notes")
        fleet.await_phase("park", "parked")
        fleet.await_phase("stop", "stopped")
        assert not any(alive(pid) for pid in pids)
        assert not list((fleet.state / "spool").glob("*-self.json*"))
        with fleet.store() as store:
            for what in REQUESTS:
                assert [action.intent for action in store.actions(what)] == [what]
        # The next circusd finds nothing of it any more.
        before = [fleet.view(what)["generation"] for what in REQUESTS]
        fleet.end(signal.SIGKILL)
        fleet.start()
        fleet.await_ticks()
        assert [fleet.view(what)["generation"] for what in REQUESTS] == before
        assert fleet.prompts(launch.conversation) == ["read your notes"]

    def test_a_request_that_waited_is_not_carried_out_on_a_later_launch(self, fleet: Fleet) -> None:
        fleet.agent("bob")
        fleet.start()
        fleet.await_up("bob")
        older = environment_of(fleet, "bob")
        assert fleet.ctl("restart", "bob").code == 0
        fleet.end(signal.SIGKILL)
        granted(ask(older, "stop"))
        fleet.start()
        view = followed(fleet, "bob", 2)
        assert alive(view["pid"])

    def test_one_that_asked_for_fresh_and_died_with_circusd_down_begins_fresh_once(
        self, fleet: Fleet
    ) -> None:
        fleet.agent("bob", **PROMPT)
        fleet.start()
        fleet.await_up("bob")
        environment, pid = environment_of(fleet, "bob"), fleet.view("bob")["pid"]
        fleet.end(signal.SIGKILL)
        granted(ask(environment, "fresh"))
        os.kill(pid, signal.SIGKILL)
        wait_for("it is gone", lambda: not alive(pid))
        fleet.start()
        followed(fleet, "bob", 2)
        launch = fleet.begun("bob")
        assert launch.wake_cause == "fresh-requested"
        fleet.await_screen("bob", "done: read your notes")
        assert fleet.prompts(launch.conversation) == ["read your notes"]
