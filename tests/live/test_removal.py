"""An agent that is removed leaves its history alone; one whose section vanished comes back as it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from circus_failover.records import AgentRow, TaskRow
from tests import proc
from tests.live.fleet import STANDIN, Fleet, alive, wait_for


def row_of(fleet: Fleet, name: str) -> AgentRow:
    with fleet.store() as store:
        return store.agents()[name]


def queue(fleet: Fleet, name: str, *texts: str) -> None:
    """Queue tasks for an agent whose launches fail at the gate, so that they stay."""
    for text in texts:
        assert fleet.call("wake", name=name, task=text, waiting=True)["status"] == "error"


def queued(fleet: Fleet, name: str) -> list[str]:
    return [task["begins"] for task in fleet.call("tasks", names=[name])["tasks"]]


def all_tasks(fleet: Fleet, *numbers: int) -> list[TaskRow | None]:
    with fleet.store() as store:
        return [store.task(number) for number in numbers]


def rewrite(fleet: Fleet, name: str, section: dict[str, str] | None) -> None:
    """Add or remove an agent's section, and have circusd read it."""
    if section is None:
        del fleet.sections[f"watcher:{name}"]
    else:
        fleet.sections[f"watcher:{name}"] = section
    fleet.write()
    assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"


def carrying(fleet: Fleet, name: str) -> list[int]:
    """Return the processes of the fleet that are an agent's, by the name in their environment."""
    found = []
    for process in fleet.processes():
        if f"FAILOVER_IDENTITY={name}".encode() in proc.environment(process.pid).split(b"\0"):
            found.append(process.pid)
    return found


def await_none_carries(fleet: Fleet, name: str) -> None:
    """Wait until nothing of an agent runs: what tells of its end, from its own pane, ends a moment later."""
    wait_for(f"nothing of {name} runs", lambda: carrying(fleet, name) == [])


def away(fleet: Fleet) -> Path:
    """Return a folder that does not exist: an agent that is to start there is refused."""
    return fleet.folder / "away"


class TestRm:
    def test_queued_tasks_are_cancelled_and_listed_and_its_neighbour_keeps_everything(
        self, fleet: Fleet
    ) -> None:
        for name in ("bob", "bob2"):
            fleet.agent(name, working_dir=str(away(fleet)))
        fleet.start()
        for name in ("bob", "bob2"):
            queue(fleet, name, f"first of {name}", f"second of {name}")
        before = row_of(fleet, "bob2")
        done = fleet.ctl("rm", "bob")
        assert done.code == 0, done
        assert "1 (first of bob)" in done.out and "2 (second of bob)" in done.out and "bob2" not in done.out
        assert [task.state for task in all_tasks(fleet, 1, 2, 3, 4) if task] == [
            *("cancelled", "cancelled", "queued", "queued")
        ]
        assert queued(fleet, "bob2") == ["first of bob2", "second of bob2"]
        assert row_of(fleet, "bob2") == before
        assert fleet.ctl("tasks").out.count("bob2") and "first of bob " not in fleet.ctl("tasks").out
        answer = fleet.call("rm", name="bob2", waiting=True)
        assert [task["id"] for task in answer["agents"][0]["cancelled_tasks"]] == [3, 4]

    def test_an_agent_of_the_same_name_that_comes_later_begins_with_nothing_of_it(self, fleet: Fleet) -> None:
        """Its park, its stop, its crash loop and its tasks are gone; its history is not."""
        fleet.resumable("parked")
        fleet.resumable("stopped")
        fleet.agent("held", failover__command="/bin/false", failover__crash_max="1")
        fleet.agent("alive")
        fleet.agent("eve")
        fleet.start()
        names = ("parked", "stopped", "held", "alive")
        fleet.await_up("parked", "stopped", "alive")
        fleet.converse("parked")
        fleet.converse("stopped")
        fleet.call("park", name="parked", waiting=True)
        fleet.call("stop", name="stopped", waiting=True)
        fleet.await_phase("held", "held")
        queue(fleet, "held", "never done")
        (view,) = fleet.await_up("alive")
        before = {name: fleet.view(name)["generation"] for name in names}
        for name in names:
            assert fleet.call("rm", name=name, waiting=True)["status"] == "ok"
        assert not alive(view["pid"])
        await_none_carries(fleet, "alive")
        assert [agent["identity"] for agent in fleet.call("fleet")["agents"]] == ["eve"]
        for name in names:
            assert (fleet.state / "panes" / f"{name}.log").exists()
            with fleet.store() as store:
                assert len(store.launches(name)) == before[name]
                assert store.history(name)[0]["ev"] == "removed"

        fleet.agent("held")
        fleet.write()
        # Their sections are there still, or again; that undoes no removal until somebody asks for them.
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        assert {fleet.view(name)["phase"] for name in names} == {"down"}
        answer = fleet.call("wake", names=list(names), waiting=True)
        assert answer["status"] == "ok", answer
        for name in names:
            launch = fleet.begun(name)
            assert (launch.mode, launch.wake_cause) == ("fresh", "first-wake"), name
            assert launch.generation == before[name] + 1
            row = row_of(fleet, name)
            assert (row.stay_stopped, row.parked_by, row.loop, row.declared) == (False, None, "closed", True)
            assert fleet.launches(name)[1].ended_at is not None
        assert queued(fleet, "held") == []
        # Deaths before the removal do not count against it either.
        fleet.await_screen("held", "standin ready")
        fleet.type("held", "/crash 1")
        held = fleet.await_phase("held", "down")
        assert held["generation"] == before["held"] + 1

    def test_the_tasks_of_one_that_runs_are_listed_too(self, fleet: Fleet) -> None:
        names = ("bob", "zoe")
        for name in names:
            fleet.agent(name, failover__ready_match="never shown", failover__boot_secs="60")
        fleet.agent("eve")
        fleet.start()
        fleet.await_up("eve")
        for number, name in enumerate(names, 1):
            fleet.call_all({"command": "wake", "name": name, "task": "never done"}, timeout=0)
            wait_for("it boots", lambda name=name: fleet.view(name)["pid"])  # type: ignore[misc]
            wait_for("it is queued", lambda name=name: queued(fleet, name))  # type: ignore[misc]
            # Without --waiting too it is told what was cancelled, once that is known.
            patience = ("--waiting",) if name == "bob" else ("--timeout", "30")
            done = fleet.ctl("rm", name, *patience)
            assert done.code == 0 and f"{number} (never done)" in done.out, done
        for name in names:
            await_none_carries(fleet, name)

        def states() -> list[str | None]:
            return [task.state if task else None for task in all_tasks(fleet, 1, 2)]

        wait_for("they are cancelled", lambda: states() == ["cancelled"] * 2)

    def test_what_comes_while_it_is_removed_launches_nothing_and_is_told_so(self, fleet: Fleet) -> None:
        fleet.resumable("parked")
        fleet.agent("slow", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="0.3")
        fleet.agent("eve")
        fleet.start()
        fleet.await_up("parked", "slow", "eve")
        fleet.converse("parked")
        fleet.await_screen("slow", "standin ready")
        fleet.call("park", name="parked", waiting=True)
        verbs = ("wake", "rm", "start", "fresh", "restart", "wake")
        for name in ("parked", "slow"):
            asked = ({"command": verb, "name": name, "waiting": True} for verb in verbs)
            tasks = ({"task": "never done"} if verb == "wake" else {} for verb in verbs)
            answers = fleet.call_all(*({**one, **task} for one, task in zip(asked, tasks, strict=True)))
            first, removed, *later = answers
            assert removed["status"] == "ok"
            # circusd may have carried out the wake before it reads of the removal, which then ends that too.
            came_late = "not queued" in first.get("reason", "")
            for answer in [first, *later] if came_late else later:
                assert answer["status"] == "error", answer
                assert any(text in answer["reason"] for text in ("being removed", "no agent", "not found"))
            assert "not queued" in later[-1]["reason"]
            # The wake was there before the removal had its turn; one that it launched would have no keeper.
            with fleet.store() as store:
                assert len(store.launches(name)) == 1 or not came_late
                assert store.tasks(name) == []
            await_none_carries(fleet, name)

    def test_it_waits_for_the_end_and_what_is_queued_meanwhile_is_cancelled_too(self, fleet: Fleet) -> None:
        fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="1")
        fleet.agent("eve")
        fleet.start()
        fleet.await_up("bob", "eve")
        fleet.await_screen("bob", "standin ready")
        removed, woken = fleet.call_all(
            {"command": "rm", "name": "bob", "waiting": True},
            {"command": "wake", "name": "bob", "task": "too late", "waiting": True},
        )
        assert removed["status"] == "ok"
        assert woken["status"] == "error", woken
        (task,) = all_tasks(fleet, 1)
        assert task is None or task.state == "cancelled"
        assert "stays queued" not in woken["reason"], "it is cancelled, and nothing says so"
        await_none_carries(fleet, "bob")


class TestAVanishedSection:
    """It is no removal."""

    @pytest.mark.parametrize("while_down", [False, True], ids=["by reloadconfig", "while circusd was down"])
    def test_it_comes_back_as_it_was(self, fleet: Fleet, while_down: bool) -> None:
        fleet.resumable("parked", failover__restart="always")
        fleet.resumable("stopped", failover__restart="always")
        fleet.agent("held", failover__command="/bin/false", failover__crash_max="1")
        fleet.agent("waiting", working_dir=str(away(fleet)))
        fleet.resumable("alive")
        fleet.agent("eve")
        fleet.guard(interval="1")
        fleet.start()
        first = fleet.begun("parked")
        fleet.await_up("stopped", "alive", "eve")
        fleet.converse("parked")
        fleet.call("park", name="parked", waiting=True)
        fleet.call("stop", name="stopped", waiting=True)
        fleet.await_phase("held", "held")
        queue(fleet, "waiting", "kept one", "kept two")
        names = ("parked", "stopped", "held", "waiting", "alive")
        before = {name: fleet.view(name) for name in names}
        sections = {name: fleet.sections.pop(f"watcher:{name}") for name in names}
        if while_down:
            fleet.end()
            fleet.start()
            fleet.await_up("eve")
        else:
            fleet.write()
            assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        assert [agent["identity"] for agent in fleet.call("fleet")["agents"]] == ["eve"]
        doctor = fleet.ctl("doctor", str(fleet.ini))
        assert [name for name in names if name not in doctor.out] == []
        assert alive(before["alive"]["pid"]), "it lives on, unsupervised"
        fleet.await_ticks(1)
        for name, section in sections.items():
            fleet.sections[f"watcher:{name}"] = section
        if while_down:
            fleet.end()
            fleet.start()
        else:
            fleet.write()
            assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        fleet.await_up("alive", "eve")
        fleet.await_ticks(2)
        for name in names:
            now = fleet.view(name)
            kept = ("phase", "generation", "pid", "parked_by", "conversation", "held_until", "tasks")
            assert {key: now[key] for key in kept} == {key: before[name][key] for key in kept}
        assert queued(fleet, "waiting") == ["kept one", "kept two"]
        assert fleet.ctl("wake", "parked").code == 0
        launch = fleet.begun("parked")
        assert (launch.wake_cause, launch.conversation) == ("idle-reaped-resume", first.conversation)
        away(fleet).mkdir()
        assert fleet.ctl("wake", "waiting").code == 0
        fleet.await_screen("waiting", "done: kept two")

    def test_what_ended_meanwhile_is_a_death_when_it_comes_back(self, fleet: Fleet) -> None:
        fleet.resumable("bob")
        fleet.agent("eve")
        fleet.start()
        fleet.begun("bob")
        fleet.converse("bob")
        section = dict(fleet.sections["watcher:bob"])
        pid = fleet.view("bob")["pid"]
        rewrite(fleet, "bob", None)
        os.kill(pid, signal.SIGKILL)
        wait_for("it is gone", lambda: not alive(pid))
        rewrite(fleet, "bob", section)
        fleet.await_phase("bob", "down")
        wait_for("its end is known", lambda: fleet.view("bob")["last_cause"] == "signaled")
        assert fleet.launches("bob")[0].planned is False
        assert fleet.ctl("wake", "bob").code == 0
        assert fleet.begun("bob").wake_cause == "crash-or-self-close"

    def test_an_end_under_way_is_still_what_was_asked_for_when_it_comes_back(self, fleet: Fleet) -> None:
        names = ("stopped", "restarted", "left")
        for name in names:
            fleet.agent(name, failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="60")
        fleet.agent("eve")
        fleet.start()
        pids = [int(view["pid"]) for view in fleet.await_up(*names)]
        for name in names:
            fleet.await_screen(name, "standin ready")
        sections = {name: fleet.sections.pop(f"watcher:{name}") for name in names}
        fleet.write()
        # Asked for in this order, on one connection: who waits is told, and not left waiting.
        stop, restart, _, reloaded = fleet.call_all(
            {"command": "stop", "name": "stopped", "waiting": True},
            {"command": "restart", "name": "restarted", "waiting": True},
            {"command": "stop", "name": "left"},
            {"command": "reloadconfig", "waiting": True},
        )
        assert sorted(reloaded["detached"]) == sorted(names)
        assert "no section" in stop["agents"][0]["reason"], stop
        assert restart["status"] == "error" and "until one does" in restart["reason"], restart
        assert all(alive(pid) for pid in pids), "they have a minute to end"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        spool = fleet.state / "spool"
        wait_for("their reports", lambda: len(list(spool.glob("*-ended.json"))) == len(names))
        fleet.await_ticks(1)
        for name in names[:2]:
            fleet.sections[f"watcher:{name}"] = sections[name]
        fleet.write()
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        assert fleet.await_up("restarted")[0]["generation"] == 2
        assert fleet.await_phase("stopped", "stopped")["cause"] == "operator-stop"
        for name, cause in (("stopped", "operator-stop"), ("restarted", "operator-restart")):
            end = fleet.launches(name)[-1]
            assert (end.planned, end.end_cause) == (True, cause)
        # One that does not come back can be purged, and then nothing waits for it either.
        assert fleet.ctl("purge", "left").code == 0
        wait_for("nothing waits", lambda: not list(spool.glob("*.json")))


class TestPurge:
    def test_it_deletes_everything_of_one_that_is_gone_and_says_what(self, fleet: Fleet) -> None:
        for name in ("bob", "bob2", "eve"):
            fleet.agent(name)
        fleet.start()
        fleet.await_up("bob", "bob2", "eve")
        for name in ("bob", "bob2"):
            assert fleet.ctl("wake", name, "--task", "do it", "--topic", "work", "--waiting").code == 0
        logs = fleet.state / "panes"
        for number in (1, 2):
            (logs / f"bob.log.{number}").write_text("older")
            (logs / f"bob2.log.{number}").write_text("older")
        (logs / "bob.log.notes").write_text("somebody's own")
        refused = fleet.ctl("purge", "bob")
        assert refused.code == 3 and "rm bob" in refused.err, refused
        assert fleet.ctl("rm", "bob", "--waiting").code == 0
        assert "removed" in fleet.ctl("history", "bob").out.splitlines()[-1]
        done = fleet.ctl("purge", "bob")
        assert done.code == 0, done
        for words in ("agents 1", "launches 1", "actions 1", "tasks 1", "topics 1", "pane logs 3", "history"):
            assert words in done.out, done
        kept = sorted(path.name for path in logs.iterdir())
        assert kept == ["bob.log.notes", "bob2.log", "bob2.log.1", "bob2.log.2", "eve.log"]
        left = [path for path in fleet.state.rglob("*") if path.name.split(".")[0] == "bob"]
        assert [path.name for path in left] == ["bob.log.notes"]
        with fleet.store() as store:
            assert "bob" not in store.agents() and store.launches("bob") == []
            assert store.history("bob") == [] and store.actions("bob") == [] and store.task(1) is None
            assert len(store.launches("bob2")) == 1 and store.task(2) is not None
        again = fleet.ctl("purge", "bob")
        assert again.code == 3 and "nothing is known" in again.err, again
        assert fleet.ctl("history", "bob").code == 3
        assert fleet.view("bob2")["phase"] == "up"
        assert any(line["ev"] == "purge" and line["identity"] == "bob" for line in fleet.lifecycle())
        # One of the same name that comes later is a new one in every respect.
        assert fleet.call("reloadconfig", waiting=True)["status"] == "ok"
        launch = fleet.begun("bob")
        assert (launch.generation, launch.wake_cause) == (1, "first-wake")

    def test_it_refuses_what_is_declared_or_may_still_run(self, fleet: Fleet) -> None:
        fleet.agent("bob")
        fleet.agent("down", autostart="False")
        fleet.agent("eve")
        fleet.start()
        (view, _) = fleet.await_up("bob", "eve")
        for name in ("bob", "down"):
            refused = fleet.ctl("purge", name)
            assert refused.code == 3 and f"rm {name}" in refused.err, refused
        section = dict(fleet.sections["watcher:bob"])
        rewrite(fleet, "bob", None)
        refused = fleet.ctl("purge", "bob")
        assert refused.code == 3 and str(view["pid"]) in refused.err, refused
        assert alive(view["pid"]) and fleet.launches("bob")
        for arguments, code in ((["nobody"], 3), ([], 2), (["bob", "eve"], 2), (["*"], 3)):
            done = fleet.ctl("purge", *arguments)
            assert done.code == code and "Traceback" not in done.err, done
        os.kill(view["pid"], signal.SIGKILL)
        wait_for("it is gone", lambda: not alive(view["pid"]))
        assert fleet.ctl("purge", "bob").code == 0
        rewrite(fleet, "bob", section)
        assert fleet.begun("bob").generation == 1

    def test_what_is_left_of_a_launch_keeps_it_from_being_purged(self, fleet: Fleet) -> None:
        """Its server died and it lives on: nobody would know of it any more."""
        fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term")
        fleet.agent("eve")
        fleet.start()
        fleet.await_up("bob", "eve")
        fleet.await_screen("bob", "standin ready")
        view: dict[str, Any] = fleet.view("bob")
        os.kill(view["server_pid"], signal.SIGKILL)
        fleet.await_phase("bob", "down")
        assert alive(view["pid"])
        rewrite(fleet, "bob", None)
        refused = fleet.ctl("purge", "bob")
        assert refused.code == 3 and str(view["pid"]) in refused.err, refused
