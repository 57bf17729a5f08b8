"""A wake: resume or fresh as the last end says, one launch however many ask, and every refusal explained."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from circus_failover.records import LaunchRow
from tests import proc
from tests.live.fleet import BIN, RESUME, STANDIN, Fleet, alive, last_words, wait_for


def wake(fleet: Fleet, name: str, **properties: Any) -> dict[str, Any]:
    """Wake one agent as failoverctl does, and return its verdict."""
    answer = fleet.call("wake", name=name, waiting=True, **properties)
    verdict: dict[str, Any] = answer["agents"][0]
    assert verdict["ok"] == (answer["status"] == "ok"), answer
    return verdict


def woken(fleet: Fleet, name: str, **properties: Any) -> LaunchRow:
    """Wake one agent, which must come up by it, and return its launch."""
    before = fleet.launches(name)[0].generation if fleet.launches(name) else 0
    verdict = wake(fleet, name, **properties)
    assert verdict["ok"] and verdict["generation"] == before + 1, verdict
    return fleet.begun(name)


def of(fleet: Fleet, name: str, *fields: str) -> tuple[Any, ...]:
    view = fleet.view(name)
    return tuple(view[field] for field in fields)


def park(fleet: Fleet, *names: str, verb: str = "park") -> None:
    assert fleet.call(verb, names=list(names), waiting=True)["status"] == "ok"


def how(launch: LaunchRow) -> tuple[str | None, str | None]:
    return launch.mode, launch.wake_cause


def refusals(fleet: Fleet, name: str) -> list[str]:
    """Return the causes of the refused wakes of an agent, as the log tells them."""
    wakes = [line for line in fleet.lifecycle() if line["ev"] == "wake" and line["identity"] == name]
    assert all(line["reason"] for line in wakes if line["mode"] == "refused")
    return [line["cause"] for line in wakes if line["mode"] == "refused"]


def script(fleet: Fleet, text: str) -> str:
    """Write a shell script and return the command that runs it."""
    path = fleet.work / f"{uuid.uuid4().hex}.sh"
    path.write_text(text)
    return f"/bin/sh {path}"


def failing_once(fleet: Fleet, first: str, then: str = f'exec {STANDIN} --resume "$1"') -> str:
    """Return a command that does something else when it is run for the first time."""
    flag = fleet.work / f"{uuid.uuid4().hex}.tried"
    return script(fleet, f"if [ ! -e {flag} ]; then touch {flag}; {first}; fi\n{then}\n")


FAILS = {"failover__command": "/bin/false", "failover__ready_secs": "60"}
"""What ends as it starts, and may take its time for that: it never counts as ready."""


def ready_only_when_shown(text: str = "standin ready") -> dict[str, str]:
    return {"failover__ready_match": text, "failover__boot_secs": "60"}


class TestTheTable:
    """Each row, as it really happens; `begun` holds log, store and environment together."""

    def test_the_first_wake_is_fresh_and_so_is_the_first_start(self, fleet: Fleet) -> None:
        fleet.resumable("auto", failover__kind="conversation")
        fleet.resumable("manual", autostart="False")
        fleet.start()
        launches = [woken(fleet, "manual"), fleet.begun("auto")]
        assert [how(launch) for launch in launches] == [("fresh", "first-wake")] * 2
        assert launches[0].conversation != launches[1].conversation

    def test_fresh_and_resume_do_as_they_are_told(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.start()
        first = fleet.begun("bob")
        fleet.converse("bob", "one")
        park(fleet, "bob")
        assert fleet.ctl("wake", "bob", "--fresh").code == 0
        fresh = fleet.begun("bob")
        assert how(fresh) == ("fresh", "fresh-requested")
        assert fresh.conversation != first.conversation
        fleet.converse("bob", "two")
        # It ends by itself: nothing but a resume that is asked for by name would go on.
        os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
        fleet.await_phase("bob", "down")
        assert fleet.ctl("wake", "bob", "--resume").code == 0
        resumed = fleet.begun("bob")
        assert how(resumed) == ("resume", "resume-requested")
        assert resumed.conversation == fresh.conversation
        assert f"resumed {fresh.conversation} (1 turns)" in fleet.await_screen("bob", "standin ready")
        assert fleet.ctl("wake", "bob", "--fresh", "--resume").code == 2

    def test_a_resume_of_nothing_fails_loudly_and_launches_nothing(self, fleet: Fleet) -> None:
        fleet.agent("plain")
        fleet.resumable("never", autostart="False")
        fleet.resumable("unready", autostart="False", **ready_only_when_shown("never shown"))
        fleet.start()
        fleet.await_up("plain")
        assert fleet.ctl("stop", "unready", "--waiting").code == 0
        fleet.call("start", name="unready")
        wait_for("a pid", lambda: fleet.view("unready")["pid"])
        park(fleet, "plain", "unready")
        for name, generation in (("plain", 1), ("never", 0), ("unready", 1)):
            before = fleet.view(name)
            done = fleet.ctl("wake", name, "--resume")
            assert done.code == 3, done
            assert "nothing to resume" in done.err and "without --resume" in done.err
            assert refusals(fleet, name) == ["resume-requested-nothing-to-resume"]
            after = fleet.view(name)
            assert {**after, "last_activity": None} == {**before, "last_activity": None}
            assert len(fleet.launches(name)) == generation
            assert fleet.call("status", name=name)["status"] == "stopped"
        assert fleet.view("plain")["parked_by"] == "park"
        assert "resume_command" in fleet.ctl("wake", "plain", "--resume").err

    def test_what_was_lost_with_its_tmux_server_is_resumed_where_it_can_be(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.resumable("off", failover__resume_lost="false")
        fleet.agent("plain")
        fleet.resumable("talk", failover__kind="conversation")
        fleet.start()
        names = ("bob", "off", "plain", "talk")
        fleet.await_up(*names)
        first = {name: fleet.begun(name) for name in names}
        for name in names:
            fleet.converse(name)
        for name in names:
            os.kill(fleet.view(name)["server_pid"], signal.SIGKILL)
        for name in names:
            # A server that is killed lets go of its terminals first: its agent may be seen to end before it.
            wait_for(
                "it is known to have died with its server",
                lambda name=name: of(fleet, name, "phase", "cause") == ("down", "server-lost"),  # type: ignore[misc]
            )
        for name, wanted in {
            "bob": ("resume", "lost-resume"),
            "off": ("fresh", "crash-or-self-close"),
            "plain": ("fresh", "lost-no-resume"),
            "talk": ("resume", "lost-resume"),
        }.items():
            launch = woken(fleet, name, topic="never heard of")
            assert how(launch) == wanted
            assert (launch.conversation == first[name].conversation) == (wanted[0] == "resume")
            assert launch.parked_by is None
        # What is lost twice is resumed twice: no park was there to be spent.
        os.kill(fleet.view("bob")["server_pid"], signal.SIGKILL)
        fleet.await_phase("bob", "down")
        assert how(woken(fleet, "bob")) == ("resume", "lost-resume")

    def test_what_was_lost_with_its_host_is_resumed(self, fleet: Fleet) -> None:
        """The store says that its launch was on another boot of the host."""
        fleet.resumable("bob")
        fleet.resumable("eve")
        fleet.resumable("zoe", failover__restart="always")
        fleet.guard(interval="1")
        fleet.start()
        first, _ = fleet.begun("bob"), fleet.begun("zoe")
        views = fleet.await_up("bob", "eve", "zoe")
        fleet.converse("bob")
        fleet.converse("zoe")
        park(fleet, "eve")
        fleet.end(signal.SIGKILL)
        for view in views:
            if alive(view["pid"]):
                os.kill(view["server_pid"], signal.SIGKILL)
                wait_for("it is gone", lambda pid=view["pid"]: not alive(pid))  # type: ignore[misc]
        change_store(fleet, "UPDATE agents SET boot = 'an earlier one'")
        fleet.start()
        wait_for("the reboot is known", lambda: fleet.view("bob")["last_cause"] == "host-reboot")
        launch = woken(fleet, "bob")
        assert how(launch) == ("resume", "lost-resume")
        assert launch.conversation == first.conversation
        assert fleet.view("eve")["phase"] == "parked"
        # What comes back by itself begins as a wake would.
        wait_for("zoe is back", lambda: fleet.view("zoe")["generation"] == 2)
        launch = fleet.begun("zoe")
        assert (*how(launch), launch.cause) == ("resume", "lost-resume", "restart-policy")

    def test_what_ended_by_itself_begins_fresh(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.resumable("talk", failover__kind="conversation")
        fleet.start()
        conversations = [fleet.begun("bob").conversation, fleet.begun("talk").conversation]
        for name, end in (("bob", "kill"), ("talk", "/crash 3"), ("bob", "/exit"), ("talk", "kill")):
            fleet.converse(name)
            if end == "kill":
                os.kill(fleet.view(name)["pid"], signal.SIGKILL)
            else:
                fleet.type(name, end)
            fleet.await_phase(name, "down")
            launch = woken(fleet, name, topic="any")
            assert how(launch) == ("fresh", "crash-or-self-close")
            conversations.append(launch.conversation)
        assert len(set(conversations)) == 6

    def test_a_parked_conversation_goes_on_whatever_the_topic_and_however_old(self, fleet: Fleet) -> None:
        kind = {"failover__kind": "conversation", "failover__resume_max_age_secs": "0"}
        fleet.resumable("talk", **kind)
        fleet.agent("plain", **kind)
        fleet.start()
        first = fleet.begun("talk")
        fleet.await_up("plain")
        fleet.converse("talk")
        park(fleet, "talk", "plain")
        launch = woken(fleet, "talk", topic="a new one")
        assert how(launch) == ("resume", "idle-reaped-conversation")
        assert launch.conversation == first.conversation
        assert how(woken(fleet, "plain", topic="a new one")) == (
            *("fresh", "idle-reaped-conversation-no-resume"),
        )

    def test_a_topic_decides_whether_an_executor_goes_on(self, fleet: Fleet) -> None:
        """Known is what was delivered in the very conversation that would be resumed."""
        fleet.resumable("bob")
        fleet.start()
        first = fleet.begun("bob")
        fleet.converse("bob")

        def next_wake(topic: str | None) -> LaunchRow:
            park(fleet, "bob")
            launch = woken(fleet, "bob", **({} if topic is None else {"topic": topic}))
            fleet.converse("bob", f"turn {launch.generation}")
            return launch

        new = next_wake("billing")
        assert how(new) == ("fresh", "idle-reaped-new-topic")
        assert (new.conversation != first.conversation, new.topic) == (True, "billing")
        for topic in (" \t billing  ", "   ", None):
            known = next_wake(topic)
            assert how(known) == ("resume", "idle-reaped-resume"), topic
            assert known.conversation == new.conversation
            assert known.topic == ("billing" if topic and topic.strip() else None)
        other = next_wake("Billing")
        assert how(other) == ("fresh", "idle-reaped-new-topic")
        assert how(next_wake("billing")) == ("fresh", "idle-reaped-new-topic")

    def test_the_topic_of_a_task_counts_once_it_was_delivered(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")
        park(fleet, "bob")
        assert fleet.ctl("wake", "bob", "--topic", "ledger", "--task", "add it up", "--waiting").code == 0
        launch = fleet.begun("bob")
        assert (*how(launch), launch.topic) == ("fresh", "idle-reaped-new-topic", "ledger")
        fleet.await_screen("bob", "done: add it up")
        park(fleet, "bob")
        again = woken(fleet, "bob", topic="ledger", task="once more")
        assert how(again) == ("resume", "idle-reaped-resume")
        assert again.conversation == launch.conversation

    def test_a_topic_that_was_not_delivered_is_not_known(self, fleet: Fleet) -> None:
        """The boot that it was meant for failed, so the parked conversation never heard of it."""
        fleet.resumable("bob")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")
        park(fleet, "bob")
        fleet.agent("bob", failover__resume_command=RESUME, **FAILS)
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        assert not wake(fleet, "bob", topic="ledger")["ok"]
        fleet.resumable("bob")
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        assert how(woken(fleet, "bob", topic="ledger")) == ("fresh", "idle-reaped-new-topic")

    def test_a_known_topic_begins_fresh_where_nothing_can_be_resumed(self, fleet: Fleet) -> None:
        fleet.agent("bob")
        fleet.start()
        fleet.await_up("bob")
        park(fleet, "bob")
        assert how(woken(fleet, "bob", topic="billing")) == ("fresh", "idle-reaped-new-topic")
        park(fleet, "bob")
        assert how(woken(fleet, "bob", topic="billing")) == ("fresh", "idle-reaped-no-resume")
        park(fleet, "bob")
        assert how(woken(fleet, "bob")) == ("fresh", "idle-reaped-no-resume")

    def test_too_old_a_park_begins_fresh_unless_the_topic_is_known(self, fleet: Fleet) -> None:
        fleet.resumable("bob", failover__resume_max_age_secs="0.3")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")

        def long_parked() -> None:
            park(fleet, "bob")
            with fleet.store() as store:
                at = store.agents()["bob"].parked_at
            assert at is not None
            wait_for("it is too old", lambda: time.time() - at > 0.3)

        long_parked()
        launch = woken(fleet, "bob")
        assert (*how(launch), launch.parked_by) == ("fresh", "idle-reaped-too-old", "park")
        fleet.converse("bob")
        park(fleet, "bob")
        fleet.call("wake", name="bob", waiting=True, mode="resume", topic="billing")
        long_parked()
        assert how(woken(fleet, "bob", topic="billing")) == ("resume", "idle-reaped-resume")

    def test_stop_restart_park_and_self_park_all_end_in_a_resume_that_says_who(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.start()
        first = fleet.begun("bob")
        fleet.converse("bob")

        def resumed(by: str) -> None:
            launch = fleet.begun("bob")
            assert (*how(launch), launch.parked_by) == ("resume", "idle-reaped-resume", by)
            assert launch.conversation == first.conversation
            fleet.await_screen("bob", f"resumed {first.conversation}")

        park(fleet, "bob", verb="stop")
        assert fleet.ctl("start", "bob").code == 0
        resumed("operator-stop")
        assert fleet.ctl("restart", "bob").code == 0
        resumed("operator-restart")
        park(fleet, "bob")
        assert fleet.ctl("wake", "bob").code == 0
        resumed("park")
        ask_itself(fleet, "bob", "park")
        fleet.await_phase("bob", "parked")
        assert fleet.ctl("start", "bob").code == 0, "an operator's start resumes what is parked, too"
        resumed("self")


def ask_itself(fleet: Fleet, name: str, what: str) -> None:
    """Run `failoverctl self` with the environment of an agent's own process."""
    pid = fleet.view(name)["pid"]
    environment = dict(
        entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in entry
    )
    done = subprocess.run(
        [str(BIN / "failoverctl"), "self", what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # What carries a launch's name may well be ended together with that launch.
    assert done.returncode in (0, -signal.SIGTERM) and "under way" in done.stdout, done


def change_store(fleet: Fleet, statement: str) -> None:
    """Change the store while no circusd holds it."""
    assert fleet.circusd is None
    with contextlib.closing(sqlite3.connect(fleet.state / "failover.db")) as connection, connection:
        connection.execute(statement)


class TestThePark:
    """It belongs to the launch it ended, and is spent with the next one that becomes ready."""

    @pytest.mark.parametrize("how_it_fails", ["exits", "its server dies", "circusd dies, then it"])
    def test_a_failed_boot_keeps_it_and_the_next_wake_resumes(self, fleet: Fleet, how_it_fails: str) -> None:
        first = last_words("not today", 4)
        if how_it_fails != "exits":
            # One that dies of SIGHUP may be gone before its server is; this one is there still.
            first = "trap '' HUP TERM; echo not today; exec sleep 600"
        command = failing_once(fleet, first)
        fleet.resumable(
            "bob",
            failover__resume_command=f"{command} {{conversation}}",
            failover__stop_secs="0.3",
            **ready_only_when_shown(),
        )
        fleet.start()
        begun = fleet.begun("bob")
        fleet.converse("bob")
        park(fleet, "bob")
        cause = "idle-reaped-resume"
        if how_it_fails == "exits":
            done = fleet.ctl("wake", "bob")
            assert done.code == 3 and "not today" in done.err, done
            assert fleet.launches("bob")[0].end_cause == "launch-failed"
        else:
            fleet.call_all({"command": "wake", "name": "bob"}, timeout=0)
            view = wait_for(
                "it boots", lambda: (v := fleet.view("bob"))["generation"] == 2 and v["pid"] and v
            )
            fleet.await_screen("bob", "not today")
            if how_it_fails != "its server dies":
                fleet.end(signal.SIGKILL)
                os.kill(view["pid"], signal.SIGKILL)
                wait_for("it is gone", lambda: not alive(view["pid"]))
                fleet.start()
            else:
                os.kill(view["server_pid"], signal.SIGKILL)
                cause = "lost-resume"
        failed = fleet.await_phase("bob", "down")
        assert (failed["parked_by"], failed["generation"]) == ("park", 2)
        wait_for(
            "the failure is in the log",
            lambda: [line for line in fleet.lifecycle() if line["ev"] == "wake" and line["mode"] == "failed"],
        )
        wait_for("that wake has come to its end", lambda: nothing_is_cleared(fleet))
        launch = woken(fleet, "bob")
        assert (*how(launch), launch.conversation) == ("resume", cause, begun.conversation)
        assert fleet.view("bob")["parked_by"] is None

    def test_a_launch_that_became_ready_spends_it(self, fleet: Fleet) -> None:
        """So a crash after a resume never resumes a broken context, and one after a fresh launch none."""
        fleet.resumable("bob")
        fleet.resumable("eve")
        fleet.start()
        first = {name: fleet.begun(name).conversation for name in ("bob", "eve")}
        fleet.converse("bob")
        fleet.converse("eve")
        park(fleet, "bob", "eve")
        assert woken(fleet, "bob").conversation == first["bob"]
        assert woken(fleet, "eve", mode="fresh").conversation != first["eve"]
        for name, conversation in first.items():
            os.kill(fleet.view(name)["pid"], signal.SIGKILL)
            fleet.await_phase(name, "down")
            launch = woken(fleet, name)
            assert (*how(launch), launch.parked_by) == ("fresh", "crash-or-self-close", None)
            assert launch.conversation != conversation

    def test_a_session_that_somebody_else_started_voids_it(self, fleet: Fleet) -> None:
        """And it has no conversation of its own to resume when it is parked in its turn."""
        fleet.resumable("bob")
        fleet.resumable("eve", autostart="False")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")
        park(fleet, "bob")
        pids = {name: fleet.by_hand(fleet.socket(name), name) for name in ("bob", "eve")}
        for name, pid in pids.items():
            # Else its server ends together with it, which is another end.
            fleet.tmux(fleet.socket(name), "set-option", "-g", "remain-on-exit", "on")
            # tmux is given a quarter of a second to say what is there, and may need more on a busy machine.
            wait_for("it is adopted", lambda name=name: wake(fleet, name)["ok"])  # type: ignore[misc]
            (view,) = fleet.await_up(name)
            assert (view["pid"], view["cause"], view["parked_by"]) == (pid, "adopted-foreign", None)
        os.kill(pids["bob"], signal.SIGKILL)
        fleet.await_phase("bob", "down")
        assert how(woken(fleet, "bob")) == ("fresh", "crash-or-self-close")
        park(fleet, "eve")
        assert not wake(fleet, "eve", mode="resume")["ok"]
        assert how(woken(fleet, "eve")) == ("fresh", "idle-reaped-no-resume")


def nothing_is_cleared(fleet: Fleet) -> bool:
    with fleet.store() as store:
        return not store.open_actions()


class TestRefusals:
    def test_an_unknown_agent_is_refused_and_its_task_not_queued(self, fleet: Fleet) -> None:
        fleet.agent("bob", autostart="False")
        fleet.watcher("plain", "sleep 600")
        fleet.start()
        for name in ("nobody", "zz*", "plain", "bo"):
            done = fleet.ctl("wake", name, "--task", "do it")
            assert done.code == 3, done
            assert name in done.err and "the task was not queued" in done.err
            assert refusals(fleet, name) == ["unknown-agent"]
        # One that is unknown keeps the others from nothing but a half-done command.
        done = fleet.ctl("wake", "bob", "nobody", "b*", "--task", "do it")
        assert done.code == 3 and "nobody" in done.err
        assert refusals(fleet, "nobody") == ["unknown-agent"] * 2
        assert refusals(fleet, "b*") == [] and refusals(fleet, "bob") == []
        assert fleet.view("bob")["generation"] == 0
        assert fleet.call("tasks")["tasks"] == []

    def test_refusals_come_in_their_order_each_with_its_cause(self, fleet: Fleet) -> None:
        """Everything is wrong at once, and is put right one by one."""
        work, home = fleet.folder / "elsewhere", fleet.folder / "home"
        shared = fleet.folder / "shared"
        (shared / "projects").mkdir(parents=True)
        (home / "projects").mkdir(parents=True)
        fleet.settings.update(
            shared={"root": str(shared), "links": ["projects"]},
            accounts=[{"name": "one", "runtime": "command", "home": str(home)}],
        )
        options = {"autostart": "False", "failover__account": "one", "working_dir": str(work)}
        fleet.agent("bob", **options)
        fleet.start()
        assert fleet.ctl("stop", "bob", "--waiting").code == 0
        fleet.end()
        change_store(fleet, f"UPDATE agents SET loop = 'open', loop_until = {time.time() + 500}")
        fleet.agent("bob", failover__mode="observe", **options)
        fleet.start()

        def refused(cause: str, words: str, queued: bool) -> None:
            done = fleet.ctl("wake", "bob", "--task", f"for {cause}")
            assert done.code == 3 and words in done.err, done
            assert refusals(fleet, "bob")[-1] == cause
            tasks = [task["begins"] for task in fleet.call("tasks", names=["bob"])["tasks"]]
            assert (f"for {cause}" in tasks) is queued
            assert ("stays queued" in done.err) is queued
            assert ("was not queued" in done.err) is not queued
            assert fleet.launches("bob") == []

        refused("observed", "observed", queued=False)
        fleet.agent("bob", **options)
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        refused("stopped", "start bob", queued=False)
        assert fleet.ctl("start", "bob").code == 3
        refused("working-dir", str(work), queued=True)
        work.mkdir()
        refused("shared-state", "projects", queued=True)
        (home / "projects").rmdir()
        (home / "projects").symlink_to(shared / "projects")
        refused("crash-loop", "failoverctl reset bob", queued=True)
        assert fleet.view("bob")["phase"] == "held"
        assert fleet.ctl("reset", "bob").code == 0
        assert fleet.ctl("wake", "bob").code == 0
        tasks = ["for working-dir", "for shared-state", "for crash-loop"]
        for task in tasks:
            fleet.await_screen("bob", f"done: {task}")
        wait_for("all are delivered", lambda: fleet.call("tasks")["tasks"] == [])
        # Already live comes before all that would only hinder a launch.
        work.rename(fleet.folder / "moved")
        done = fleet.ctl("wake", "bob", "--task", "one more")
        assert done.code == 0 and "already up" in done.out and "task" in done.out, done
        assert refusals(fleet, "bob")[-1] == "already-live"
        fleet.await_screen("bob", "done: one more")
        for option, remedy in (("--fresh", "fresh bob"), ("--resume", "park")):
            done = fleet.ctl("wake", "bob", option)
            assert done.code == 3 and remedy in done.err, done
        assert len(fleet.launches("bob")) == 1

    def test_a_stop_in_the_middle_of_a_wake_wins_and_the_task_waits(self, fleet: Fleet) -> None:
        fleet.agent(
            "bob", autostart="False", failover__command=f"{STANDIN} --boot 60", **ready_only_when_shown()
        )
        fleet.start()
        waker = subprocess.Popen(
            [str(BIN / "failoverctl"), "wake", "bob", "--task", "do it"],
            env=fleet.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for("it boots", lambda: fleet.view("bob")["pid"])
            assert fleet.ctl("stop", "bob", "--waiting").code == 0
            said, _ = waker.communicate(timeout=20)
            assert waker.returncode == 3
            assert "stopped meanwhile" in said and "task 1 is not delivered and stays queued" in said
        finally:
            waker.kill()
            waker.wait()
        assert refusals(fleet, "bob") == ["stopped-mid-wake"]
        assert fleet.view("bob")["phase"] == "stopped"
        assert [task["begins"] for task in fleet.call("tasks")["tasks"]] == ["do it"]
        # `start` clears the stop; two wakes and a stop that come together end in the same way.
        fleet.agent("bob", autostart="False")
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        assert fleet.ctl("start", "bob").code == 0
        fleet.await_screen("bob", "done: do it")
        park(fleet, "bob")
        one: dict[str, Any] = {"command": "wake", "name": "bob", "waiting": True}
        *wakes, stopped = fleet.call_all(one, one, {"command": "stop", "name": "bob", "waiting": True})
        assert [answer["status"] for answer in (*wakes, stopped)] == ["error", "error", "ok"]
        # A wake may be looked at before the stop or after it: either way it says which.
        assert set(refusals(fleet, "bob")[1:]) <= {"stopped-mid-wake", "stopped"}
        assert len(refusals(fleet, "bob")) == 3
        assert fleet.view("bob")["phase"] == "stopped"
        await_none_carries(fleet, "bob")

    def test_a_wake_waits_for_a_park_that_is_under_way_and_then_resumes(self, fleet: Fleet) -> None:
        fleet.resumable("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="1")
        fleet.start()
        first = fleet.begun("bob")
        fleet.converse("bob")
        parked, again = fleet.call_all(
            {"command": "park", "name": "bob"}, {"command": "wake", "name": "bob", "waiting": True}
        )
        assert (parked["status"], again["status"]) == ("ok", "ok")
        launch = fleet.begun("bob")
        assert (*how(launch), launch.conversation) == ("resume", "idle-reaped-resume", first.conversation)
        assert not alive(first.generation) or launch.generation == 2

    def test_a_wake_records_an_end_that_nobody_saw_before_it_decides(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")
        assert fleet.circusd is not None
        pid = fleet.view("bob")["pid"]
        fleet.circusd.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        wait_for("it is gone", lambda: not alive(pid))
        fleet.call_all({"command": "wake", "name": "bob", "waiting": True}, timeout=0)
        fleet.circusd.send_signal(signal.SIGCONT)
        wait_for("it is launched again", lambda: len(fleet.launches("bob")) == 2)
        launch, ended = fleet.begun("bob"), fleet.launches("bob")[1]
        assert how(launch) == ("fresh", "crash-or-self-close")
        assert (ended.planned, ended.end_cause, ended.exit_signal) == (False, "signaled", signal.SIGKILL)

    def test_a_crash_loop_refuses_wakes_and_starts_until_it_is_reset(self, fleet: Fleet) -> None:
        broken = {**FAILS, "failover__command": script(fleet, last_words("broken", 7))}
        fleet.agent("bob", autostart="False", **broken)
        fleet.start()
        for generation in (1, 2, 3):
            done = fleet.ctl("wake", "bob")
            assert done.code == 3 and ("broken" if generation < 3 else "3 deaths") in done.err, done
            assert fleet.view("bob")["generation"] == generation
        view = fleet.await_phase("bob", "held")
        assert view["cause"] == "crash-loop" and view["held_until"] > time.time()
        for verb in ("wake", "start"):
            done = fleet.ctl(verb, "bob")
            assert done.code == 3 and "failoverctl reset bob" in done.err, done
        assert refusals(fleet, "bob") == ["crash-loop"]
        assert len(fleet.launches("bob")) == 3
        # It survives circusd, and only one that was given up is cleared by an operator's start.
        fleet.end(signal.SIGKILL)
        fleet.agent("bob", autostart="False")
        fleet.start()
        assert fleet.ctl("start", "bob").code == 3
        assert fleet.view("bob")["phase"] == "held"
        fleet.end()
        change_store(fleet, "UPDATE agents SET loop = 'given-up', loop_until = NULL, cause = 'given-up'")
        fleet.start()
        assert fleet.ctl("wake", "bob").code == 3
        assert refusals(fleet, "bob")[-1] == "given-up"
        assert fleet.ctl("start", "bob").code == 0
        fleet.await_up("bob")


class TestManyAtOnce:
    def test_a_hundred_simultaneous_wakes_are_exactly_one_launch(self, fleet: Fleet) -> None:
        fleet.resumable("never", autostart="False")
        fleet.resumable("parked")
        # It fails when all of them are there: one that comes after a failure is a wake of its own.
        go = fleet.work / "go"
        command = script(fleet, f"while [ ! -e {go} ]; do sleep 0.05; done; exit 9")
        fleet.agent("fails", autostart="False", failover__command=command, failover__ready_secs="60")
        fleet.start()
        fleet.await_up("parked")
        fleet.converse("parked")
        park(fleet, "parked")
        for name, before in (("never", 0), ("parked", 1), ("fails", 0)):
            one: dict[str, Any] = {"command": "wake", "name": name, "waiting": True}
            if name == "fails":
                with ThreadPoolExecutor() as pool:
                    said_later = pool.submit(fleet.call_all, *[one] * 99, {**one, "task": "the last one"})
                    wait_for("the last one is there", lambda: fleet.call("tasks")["tasks"])
                    go.touch()
                answers = said_later.result()
            else:
                answers = fleet.call_all(*[one] * 100)
            assert len(fleet.launches(name)) == before + 1
            said = {answer["status"] for answer in answers}
            if name == "fails":
                assert said == {"error"}
                continue
            assert said == {"ok"}
            assert fleet.begun(name).mode == ("resume" if before else "fresh")
            assert [answer["agents"][0]["already"] for answer in answers].count(False) == 1
            sessions = fleet.tmux(fleet.socket(name), "list-sessions", "-F", "#{session_name}").split()
            assert sessions == [name]

    def test_the_wake_that_came_first_decides_how_it_begins(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")
        for first, second, wanted in (
            ({"mode": "fresh"}, {}, ("fresh", "fresh-requested")),
            ({}, {"mode": "fresh"}, ("resume", "idle-reaped-resume")),
            ({"topic": "billing"}, {}, ("fresh", "idle-reaped-new-topic")),
            ({}, {"topic": "other"}, ("resume", "idle-reaped-resume")),
        ):
            park(fleet, "bob")
            generation = fleet.view("bob")["generation"]
            same: dict[str, Any] = {"command": "wake", "name": "bob", "waiting": True}
            answers = fleet.call_all({**same, **first}, {**same, **second})
            launch = fleet.begun("bob")
            assert how(launch) == wanted, (first, second)
            assert launch.generation == generation + 1
            assert answers[0]["status"] == "ok"
            fleet.converse("bob", f"turn {launch.generation}")

    @pytest.mark.parametrize("comes_up", [True, False])
    def test_whoever_comes_during_a_wake_waits_and_hears_what_became_of_it(
        self, fleet: Fleet, comes_up: bool
    ) -> None:
        go = fleet.work / "go"
        then = f"exec {STANDIN}" if comes_up else last_words("broken", 7)
        command = script(fleet, f"while [ ! -e {go} ]; do sleep 0.05; done\n{then}")
        fleet.agent("bob", autostart="False", failover__command=command, **ready_only_when_shown())
        fleet.start()
        fleet.call_all({"command": "wake", "name": "bob", "waiting": True}, timeout=0)
        wait_for("it boots", lambda: fleet.view("bob")["phase"] == "starting")
        with ThreadPoolExecutor() as pool:
            second = pool.submit(fleet.ctl, "wake", "bob", "--task", "do it")
            wait_for("it has come", lambda: fleet.call("tasks")["tasks"])
            go.touch()
        done = second.result()
        assert len(fleet.launches("bob")) == 1
        if comes_up:
            assert done.code == 0 and "already up" in done.out and "task 1 is queued" in done.out, done
            assert refusals(fleet, "bob") == ["already-live"]
            fleet.await_screen("bob", "done: do it")
        else:
            assert done.code == 3 and "another wake was under way" in done.err, done
            assert "task 1 is not delivered and stays queued" in done.err, done
            assert [task["begins"] for task in fleet.call("tasks")["tasks"]] == ["do it"]

    def test_whatever_comes_in_whatever_order_there_is_never_a_second_one(self, fleet: Fleet) -> None:
        fleet.agent(
            "bob",
            failover__ready_secs="0.05",
            failover__crash_max="100",
            failover__resume_command=STANDIN,
        )
        fleet.start()
        fleet.await_up("bob")
        chance = random.Random(1)
        verbs = ("wake", "wake", "start", "park", "stop", "restart", "fresh", "crash")
        for _ in range(8):
            burst = [chance.choice(verbs) for _ in range(chance.randint(1, 5))]
            pid = fleet.view("bob")["pid"]
            if "crash" in burst and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            fleet.call_all(
                *({"command": verb, "name": "bob", "waiting": True} for verb in burst if verb != "crash")
            )
            agents = [pid for pid in fleet.running(b"circus_failover.standin") if carries(pid, "bob")]
            shells = [pid for pid in agents if b"tmux" not in proc.command_line(pid)[:40]]
            assert len([pid for pid in shells if alive(pid)]) <= 1, burst
        assert fleet.call("stop", name="bob", waiting=True)["status"] == "ok"
        assert fleet.view("bob")["phase"] == "stopped"
        await_none_carries(fleet, "bob")
        with fleet.store() as store:
            assert store.open_actions() == []
            assert all(launch.ended_at is not None for launch in store.launches("bob", 1000))
        assert fleet.ctl("start", "bob").code == 0
        fleet.begun("bob")

    def test_several_names_and_globs_are_woken_together(self, fleet: Fleet) -> None:
        names = ["alpha", "beta-1", "beta-2", "gamma"]
        for name in names:
            fleet.agent(name, autostart="False")
        fleet.start()
        done = fleet.ctl(
            "wake", "alpha", "beta-*", "b*1", "--topic", "t", "--task", "all of you", "--waiting"
        )
        assert done.code == 0, done
        lines = done.out.splitlines()
        assert [line.split(":")[0] for line in lines] == ["alpha", "beta-1", "beta-2"]
        assert all("up" in line and "delivered" in line for line in lines)
        assert fleet.view("gamma")["generation"] == 0
        # One that is refused does not keep the others from coming up, and the exit code says it.
        fleet.ctl("stop", "beta-1", "--waiting")
        park(fleet, "alpha")
        done = fleet.ctl("wake", "alpha", "beta-1", "gamma")
        assert done.code == 3 and "beta-1" in done.err, done
        assert [line.split(" (")[0] for line in done.out.splitlines()] == ["alpha: up", "gamma: up"]
        fleet.await_up("alpha", "gamma")


class TestReady:
    """Ready is proven, or the boot failed."""

    def test_up_is_only_what_shows_what_it_must(self, fleet: Fleet) -> None:
        go = fleet.work / "go"
        command = script(fleet, f"echo booting; while [ ! -e {go} ]; do sleep 0.05; done; exec {STANDIN}")
        fleet.agent("bob", failover__command=command, **ready_only_when_shown("^standin r[a-z]+y"))
        fleet.start()
        fleet.await_screen("bob", "booting")
        fleet.await_ticks()
        assert fleet.view("bob")["phase"] == "starting"
        assert fleet.launches("bob")[0].up_at is None
        watch = wait_for("its boot is watched", lambda: fleet.running(b"circus_failover.worker"))
        os.kill(watch[0], signal.SIGKILL)
        go.touch()
        fleet.begun("bob")
        up_at = fleet.launches("bob")[0].up_at
        assert up_at is not None and "standin ready" in fleet.screen("bob")

    def test_a_boot_that_takes_too_long_failed_is_ended_and_counts_as_a_death(self, fleet: Fleet) -> None:
        fleet.agent(
            "bob",
            autostart="False",
            failover__command=f"{STANDIN} --boot 600",
            failover__ready_match="standin ready",
            failover__boot_secs="2",
            failover__crash_max="2",
        )
        fleet.agent(
            "eve",
            autostart="False",
            failover__command=script(fleet, "echo what I say last; trap '' TERM HUP; sleep 600"),
            failover__ready_match="never shown",
            failover__boot_secs="2",
            failover__stop_secs="0.3",
            failover__crash_max="1",
        )
        fleet.start()
        with ThreadPoolExecutor() as pool:  # it takes as long as they may take
            woken = [pool.submit(fleet.ctl, "wake", *one) for one in (("eve",), ("bob", "--task", "kept"))]
        done, first = (one.result() for one in woken)
        assert done.code == 3, done
        view = fleet.await_phase("eve", "held")
        launch = fleet.launches("eve")[0]
        assert (launch.end_cause, launch.planned, launch.up_at) == ("launch-failed", False, None)
        assert launch.last_output is not None and "what I say last" in launch.last_output
        assert "1 death" in view["reason"]
        of_eve = [line for line in fleet.lifecycle() if line.get("identity") == "eve"]
        (failed,) = [line for line in of_eve if line.get("mode") == "failed"]
        assert (failed["cause"], "not ready within 2 s" in failed["reason"]) == ("launch-failed", True)
        await_none_carries(fleet, "eve")
        second = fleet.ctl("wake", "bob", "--task", "kept")
        for done, words in ((first, "not ready within 2 s"), (second, "2 deaths")):
            assert done.code == 3 and done.err.count(words) == 1, done
        fleet.await_phase("bob", "held")
        assert len(fleet.call("tasks")["tasks"]) == 2
        with fleet.store() as store:
            assert all(task.attempts == 0 for task in store.tasks("bob"))

    def test_a_program_that_ends_before_it_is_ready_failed_its_boot(self, fleet: Fleet) -> None:
        crashes = {**FAILS, "failover__command": f"{STANDIN} --crash-at-start 5"}
        fleet.agent("bob", autostart="False", **crashes)
        fleet.agent("eve", autostart="False", **{**FAILS, "failover__command": "/bin/true"})
        fleet.start()
        for name, status in (("bob", 5), ("eve", 0)):
            done = fleet.ctl("wake", name)
            assert done.code == 3 and f"exit status {status}" in done.err, done
            launch = fleet.launches(name)[0]
            assert (launch.end_cause, launch.exit_status) == ("launch-failed", status)
            assert launch.up_at is None

    @pytest.mark.parametrize("shown", ["while circusd is down", "afterwards", "circusd restarts itself"])
    def test_the_next_circusd_goes_on_proving_a_boot(self, fleet: Fleet, shown: str) -> None:
        go = fleet.work / "go"
        command = script(fleet, f"while [ ! -e {go} ]; do sleep 0.05; done; exec {STANDIN}")
        fleet.agent("bob", autostart="False", failover__command=command, **ready_only_when_shown())
        fleet.start()
        fleet.call_all({"command": "wake", "name": "bob", "task": "do it"}, timeout=0)
        wait_for("it boots", lambda: fleet.view("bob")["pid"])
        view = fleet.view("bob")
        if shown == "circusd restarts itself":
            assert fleet.ctl("restart").code == 0
            wait_for("it restarts", lambda: fleet.log.read_text().count("Starting master") == 2)
            wait_for("it answers", lambda: fleet.view("bob"))
        else:
            fleet.end(signal.SIGKILL)
            if shown == "while circusd is down":
                go.touch()
                fleet.await_screen("bob", "standin ready")
            fleet.start()
        if shown != "while circusd is down":
            fleet.await_ticks()
            assert fleet.view("bob")["phase"] == "starting"
            go.touch()
        (now,) = fleet.await_up("bob")
        assert (now["pid"], now["generation"]) == (view["pid"], 1)
        fleet.await_screen("bob", "done: do it")
        launch = fleet.launches("bob")[0]
        assert launch.up_at is not None and fleet.prompts(launch.conversation) == ["do it"]

    def test_what_a_boot_may_take_goes_on_counting_under_the_next_circusd(self, fleet: Fleet) -> None:
        fleet.agent(
            "bob",
            autostart="False",
            failover__command=f"{STANDIN} --boot 600",
            failover__ready_match="standin ready",
            failover__boot_secs="2",
        )
        fleet.start()
        fleet.call_all({"command": "wake", "name": "bob"}, timeout=0)
        wait_for("it boots", lambda: fleet.view("bob")["pid"])
        fleet.end(signal.SIGKILL)
        fleet.start()
        view = fleet.await_phase("bob", "down")
        assert "not ready within 2 s" in view["reason"]
        assert fleet.launches("bob")[0].end_cause == "launch-failed"


def carries(pid: int, name: str) -> bool:
    return f"FAILOVER_IDENTITY={name}\0".encode() in proc.environment(pid)


def await_none_carries(fleet: Fleet, name: str) -> None:
    """Wait until nothing of an agent runs: what tells of its end, from its own pane, ends a moment later."""
    wait_for(
        f"nothing of {name} runs",
        lambda: not any(carries(process.pid, name) for process in fleet.processes()),
    )


def test_the_answer_in_json_is_the_verdict_of_each(fleet: Fleet) -> None:
    fleet.agent("bob", autostart="False")
    fleet.agent("eve", autostart="False", **FAILS)
    fleet.start()
    done = fleet.ctl("--json", "wake", "bob", "eve", "--task", "go")
    assert done.code == 3
    answer = json.loads(done.out)
    verdicts = {verdict["identity"]: verdict for verdict in answer["agents"]}
    assert verdicts["bob"]["ok"] and verdicts["bob"]["phase"] == "up"
    assert not verdicts["eve"]["ok"] and verdicts["eve"]["cause"] == "launch-failed"
    assert {verdict["task_state"] for verdict in verdicts.values()} == {"queued"}
