"""A task is queued before anything happens, typed when the agent is ready, and taken exactly once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, tmux
from circus_failover.records import TaskRow
from tests.live.fleet import BIN, STANDIN, Fleet, Result, wait_for
from tests.live.with_plugins import await_ticks

LONG = 60.0


def prompts(folder: Path, conversation: str | None = None) -> list[str]:
    """Return what stand-ins of one account home were told, in one conversation or in all of them."""
    found = []
    for path in sorted(folder.glob(f"projects/*/{conversation or '*'}.jsonl"), key=os.path.getmtime):
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        found += [entry["message"]["content"] for entry in entries if entry["type"] == "user"]
    return found


def told(fleet: Fleet) -> list[str]:
    """Return what the agents of a fleet without accounts were told, in all their conversations."""
    return prompts(fleet.work / ".standin")


def waiting(fleet: Fleet, name: str = "bob") -> list[TaskRow]:
    """Return the tasks that are not delivered, as stored."""
    with fleet.store() as store:
        return store.tasks(name)


def await_state(fleet: Fleet, state: str, text: str | None = None) -> TaskRow:
    """Wait until a task is in this state, and return it."""

    def look() -> TaskRow | None:
        found = [task for task in waiting(fleet) if task.state == state and text in (None, task.text)]
        return found[0] if found else None

    return wait_for(f"a task is {state}", look, LONG)


def await_delivery(fleet: Fleet) -> None:
    """Wait until no task waits for anybody."""
    wait_for("every task is delivered", lambda: fleet.call("tasks")["tasks"] == [], LONG)


def send(fleet: Fleet, *tasks: str, name: str = "bob") -> None:
    """Give an agent tasks, in this order, and do not wait for what becomes of them."""
    before = given(fleet, name)
    fleet.call_all(*({"command": "wake", "name": name, "task": task} for task in tasks), timeout=0)
    wait_for("they are queued", lambda: given(fleet, name) == before + len(tasks))


def given(fleet: Fleet, name: str) -> int:
    """Return how many tasks an agent was ever given, as lifecycle.log says."""
    wanted = ("task", name, "queued")
    return sum((line["ev"], line["identity"], line.get("action")) == wanted for line in fleet.lifecycle())


def busy(fleet: Fleet, secs: float, name: str = "bob") -> None:
    """Give a stand-in work by hand: meanwhile it echoes nothing, so whoever types has to wait."""
    fleet.await_screen(name, "standin ready")
    fleet.type(name, f"/work {secs:g} by hand")
    fleet.await_screen(name, "working")


def typist(fleet: Fleet) -> process_table.ProcessId:
    """Wait until a worker types, and return it."""

    def look() -> process_table.ProcessId | None:
        found = [task.worker for task in waiting(fleet) if task.state == "typing" and task.worker]
        return found[0] if found and process_table.may_run(found[0]) else None

    return wait_for("a worker types", look)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def with_account(fleet: Fleet, name: str, **options: str) -> Path:
    """Add an agent with an account whose projects are shared, and return the account's home."""
    shared, home = fleet.folder / "shared", fleet.folder / "home"
    (shared / "projects").mkdir(parents=True)
    home.mkdir()
    (home / "projects").symlink_to(shared / "projects")
    fleet.settings.update(
        shared={"root": str(shared), "links": ["projects"]},
        accounts=[{"name": "one", "runtime": "command", "home": str(home)}],
    )
    fleet.resumable(name, failover__account="one", **options)
    return home


# -- it arrives ----------------------------------------------------------------------------------------


def test_the_task_of_a_wake_is_in_the_transcript_of_its_account_exactly_once(fleet: Fleet) -> None:
    home = with_account(fleet, "bob", autostart="False")
    fleet.start()
    done = fleet.ctl("wake", "bob", "--task", "add it up", "--waiting")
    assert done.code == 0, done
    launch = fleet.begun("bob")
    assert prompts(home, launch.conversation) == ["add it up"]
    # Neither the next wake nor the next circusd brings it again.
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    fleet.end(signal.SIGKILL)
    fleet.start()
    assert fleet.ctl("wake", "bob", "--task", "and again", "--waiting").code == 0
    resumed = fleet.begun("bob")
    assert (resumed.mode, resumed.conversation) == ("resume", launch.conversation)
    assert prompts(home) == ["add it up", "and again"]
    assert told(fleet) == []


def test_several_tasks_are_typed_in_the_order_in_which_they_came(fleet: Fleet) -> None:
    fleet.agent("bob", autostart="False", failover__command=f"{STANDIN} --turn 0.4")
    fleet.agent("eve", autostart="False")
    fleet.start()
    tasks = [f"step {number}" for number in range(6)]
    send(fleet, *tasks[:4])
    send(fleet, "for another one", name="eve")
    send(fleet, *tasks[4:])
    await_delivery(fleet)
    bob, eve = (fleet.launches(name)[0].conversation for name in ("bob", "eve"))
    wait_for("it was told all", lambda: len(fleet.prompts(bob)) == len(tasks))
    assert fleet.prompts(bob) == tasks
    assert fleet.prompts(eve) == ["for another one"]
    assert [len(fleet.launches(name)) for name in ("bob", "eve")] == [1, 1]
    taken = [line["task"] for line in fleet.lifecycle() if line.get("action") == "delivered"]
    assert len(taken) == len(set(taken)) == len(tasks) + 1


def test_a_task_for_an_agent_that_is_up_is_typed_without_a_launch(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    done = fleet.ctl("wake", "bob", "--task", "this too", "--waiting")
    assert done.code == 0 and "already up" in done.out and "delivered" in done.out, done
    after = fleet.view("bob")
    assert (after["pid"], after["generation"]) == (view["pid"], 1)
    assert fleet.prompts(fleet.launches("bob")[0].conversation) == ["this too"]


def test_a_person_s_half_typed_line_is_cleared_before(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    pane = tmux.panes(fleet.socket("bob"), "bob")[0].pane
    fleet.tmux(fleet.socket("bob"), "send-keys", "-t", pane, "-l", "rm -rf what I was about to")
    fleet.await_screen("bob", "about to")
    assert fleet.ctl("wake", "bob", "--task", "list the files", "--waiting").code == 0
    assert told(fleet) == ["list the files"]


@pytest.mark.parametrize("given", ["file", "standard input"])
def test_a_mebibyte_arrives_whole(fleet: Fleet, given: str) -> None:
    line = "0123456789 abcdefghi ünï → " * 3 + "\n"
    text = (
        (line * (1024 * 1024 // len(line.encode()) + 1)).encode()[: 1024 * 1024 - 4].decode(errors="ignore")
    )
    text += "end\n"
    assert 1024 * 1024 - 8 < len(text.encode()) <= 1024 * 1024
    path = fleet.folder / "task.txt"
    path.write_text(text)
    fleet.agent("bob", autostart="False")
    fleet.start()
    with path.open("rb") as opened:
        done = subprocess.run(
            [
                *(str(BIN / "failoverctl"), "wake", "bob", "--waiting"),
                *("--task-file", str(path) if given == "file" else "-"),
            ],
            env=fleet.environment,
            stdin=opened if given == "standard input" else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
    assert done.returncode == 0, done
    assert told(fleet) == [text.rstrip("\n")]


def test_tasks_of_agents_that_share_a_server_do_not_mix(fleet: Fleet) -> None:
    names = ["alpha", "beta", "gamma", "delta"]
    for name in names:
        fleet.agent(name, failover__socket=str(fleet.folder / "shared.sock"))
    fleet.start()
    fleet.await_up(*names)
    tasks = {name: [f"{name} {number}: " + f"{name} " * 400 for number in range(2)] for name in names}
    fleet.call_all(
        *(
            {"command": "wake", "name": name, "task": tasks[name][number]}
            for number in range(2)
            for name in names
        )
    )
    await_delivery(fleet)
    for name in names:
        assert fleet.prompts(fleet.launches(name)[0].conversation) == tasks[name]


@pytest.mark.parametrize("task", ["/exit", "/crash 3"])
def test_a_task_at_which_its_agent_ends_is_not_given_to_the_next_launch(fleet: Fleet, task: str) -> None:
    fleet.guard(interval="0.5")
    fleet.agent("bob", autostart="False", failover__restart="on-work")
    fleet.start()
    done = fleet.ctl("wake", "bob", "--task", task, "--waiting")
    assert done.code == 0 and "delivered" in done.out, done
    fleet.await_phase("bob", "down")
    await_ticks(fleet, "CrashLoopGuard")
    assert fleet.view("bob")["generation"] == 1
    assert fleet.ctl("wake", "bob", "--task", "go on", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "up" and told(fleet) == ["go on"]


# -- waiting for it ------------------------------------------------------------------------------------


def test_whoever_waits_hears_of_it_when_it_was_taken_and_not_before(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    with waker(fleet, "bob", "--task", "later", "--waiting") as asked:
        with frozen(view["pid"]):
            await_state(fleet, "typing")
            assert asked.poll() is None and told(fleet) == []
        done = result(asked)
    assert done.code == 0 and "task 1 is delivered" in done.out, done
    assert told(fleet) == ["later"]
    assert fleet.call("tasks")["tasks"] == []


def test_whoever_waits_hears_that_the_agent_died_and_the_task_goes_to_the_next_launch(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    busy(fleet, 600)
    with waker(fleet, "bob", "--task", "later", "--waiting") as asked:
        await_state(fleet, "typing")
        fleet.await_ticks()
        assert asked.poll() is None
        os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
        done = result(asked)
    assert done.code == 3 and "not delivered" in done.err and "stays queued" in done.err, done
    fleet.await_phase("bob", "down")
    await_state(fleet, "queued", "later")
    assert len(waiting(fleet)) == 1
    # It is typed into the next launch, and only there.
    assert fleet.ctl("wake", "bob").code == 0
    await_delivery(fleet)
    launch = fleet.begun("bob")
    assert launch.generation == 2 and fleet.prompts(launch.conversation) == ["later"]
    assert told(fleet).count("later") == 1


@contextlib.contextmanager
def waker(fleet: Fleet, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `failoverctl wake` beside the test."""
    process = subprocess.Popen(
        [str(BIN / "failoverctl"), "wake", *arguments],
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def result(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=LONG)
    return Result(process.returncode, out, err)


# -- the list ------------------------------------------------------------------------------------------


def test_tasks_that_wait_are_listed_and_cancelled_one_or_all(fleet: Fleet) -> None:
    missing = fleet.folder / "missing"
    for name in ("bob", "eve"):
        fleet.agent(name, autostart="False", working_dir=str(missing))
    fleet.start()
    assert fleet.ctl("tasks").out.strip() == "no task waits"
    for text in ("first", "second\nof two lines", "third"):
        assert fleet.ctl("wake", "bob", "--task", text, "--topic", "t").code == 3
    assert fleet.ctl("wake", "eve", "--task", "of another").code == 3
    listed = fleet.call("tasks")["tasks"]
    assert [(task["agent"], task["begins"], task["state"], task["attempts"]) for task in listed] == [
        ("bob", "first", "queued", 0),
        ("bob", "second of two lines", "queued", 0),
        ("bob", "third", "queued", 0),
        ("eve", "of another", "queued", 0),
    ]
    numbers = [task["id"] for task in listed]
    shown = fleet.ctl("tasks", "bob")
    assert shown.code == 0 and "second of two lines" in shown.out and "of another" not in shown.out
    assert fleet.ctl("--json", "tasks", "eve").json()["tasks"][0]["id"] == numbers[3]
    # Neither a number that there is not nor one of another agent cancels anything.
    for number in (max(numbers) + 1, numbers[3]):
        done = fleet.ctl("tasks", "bob", "--cancel", str(number))
        assert done.code == 3 and f"no task {number}" in done.err, done
    assert len(fleet.call("tasks")["tasks"]) == 4
    done = fleet.ctl("tasks", "bob", "--cancel", str(numbers[1]))
    assert done.code == 0 and "second" in done.out and "first" not in done.out, done
    assert fleet.ctl("tasks", "bob", "--cancel", str(numbers[1])).code == 3
    assert [task["id"] for task in fleet.call("tasks")["tasks"]] == [numbers[0], *numbers[2:]]
    # What was cancelled is never typed, also not by the next circusd.
    fleet.end(signal.SIGKILL)
    fleet.start()
    missing.mkdir()
    assert fleet.ctl("tasks", "eve", "--cancel", "all").code == 0
    assert "no task was cancelled" in fleet.ctl("tasks", "eve", "--cancel", "all").out
    assert fleet.ctl("wake", "bob", "eve").code == 0
    await_delivery(fleet)
    assert prompts(missing / ".standin") == ["first", "third"]


def test_a_task_that_is_being_typed_is_not_cancelled(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    with frozen(view["pid"]):
        send(fleet, "typed", "behind it", "and behind that")
        with frozen(typist(fleet).pid):
            task = await_state(fleet, "typing", "typed")
            done = fleet.ctl("tasks", "bob", "--cancel", str(task.id))
            assert done.code == 3 and "being typed right now" in done.err, done
            done = fleet.ctl("tasks", "bob", "--cancel", "all")
            assert done.code == 3 and f"not cancelled: {task.id}" in done.err, done
    await_delivery(fleet)
    assert told(fleet) == ["typed"]


# -- whatever ends meanwhile ---------------------------------------------------------------------------


def test_a_stop_while_a_task_is_typed_ends_the_agent_and_the_task_waits(fleet: Fleet) -> None:
    fleet.resumable("bob")
    fleet.start()
    fleet.await_up("bob")
    busy(fleet, 600)
    send(fleet, "do it")
    typist(fleet)
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "stopped"
    # A worker that was told to stop before it could listen reports nothing: the next tick sees that.
    await_state(fleet, "queued", "do it")
    fleet.await_ticks()
    assert len(waiting(fleet)) == 1
    assert fleet.ctl("start", "bob").code == 0
    await_delivery(fleet)
    assert told(fleet).count("do it") == 1


@pytest.mark.parametrize("verb", ["park", "restart", "fresh"])
def test_a_task_that_was_being_typed_goes_to_the_next_launch(fleet: Fleet, verb: str) -> None:
    fleet.resumable("bob")
    fleet.start()
    fleet.await_up("bob")
    busy(fleet, 600)
    send(fleet, "do it", "and this")
    typist(fleet)
    assert fleet.ctl(verb, "bob", *(["--waiting"] if verb == "park" else [])).code == 0
    if verb == "park":
        assert [task.text for task in waiting(fleet)] == ["do it", "and this"]
        assert fleet.ctl("wake", "bob").code == 0
    await_delivery(fleet)
    launch = fleet.begun("bob")
    assert launch.generation == 2 and (launch.mode == "fresh") == (verb == "fresh")
    assert fleet.prompts(launch.conversation)[-2:] == ["do it", "and this"]
    assert [text for text in told(fleet) if text != "by hand"] == ["do it", "and this"]


@pytest.mark.parametrize("seed", [1, 2])
def test_stops_at_any_moment_of_typing_lose_nothing_and_double_nothing(fleet: Fleet, seed: int) -> None:
    # Every launch begins fresh: one that is stopped before it was told anything could not be resumed.
    fleet.agent("bob", failover__ready_secs="0.05")
    fleet.start()
    chance = random.Random(seed)
    tasks = [f"task number {number} of them" for number in range(7)]
    for task in tasks:
        fleet.await_up("bob")
        # What is typed before it reads is taken by its terminal, and lost when it is stopped then.
        fleet.await_screen("bob", "standin ready")
        send(fleet, task)
        typist_or_delivered(fleet)
        time.sleep(chance.uniform(0.0, 0.7))  # the moment is what is tried out
        assert fleet.ctl("stop", "bob", "--waiting").code == 0
        # A worker that was told to stop before it could listen reports nothing: the next tick sees that.
        wait_for("nobody types", lambda: not [one for one in waiting(fleet) if one.state == "typing"])
        left = waiting(fleet)
        assert sorted([*told(fleet), *(one.text for one in left)]) == sorted(tasks[: tasks.index(task) + 1])
        assert fleet.ctl("start", "bob").code == 0
    await_delivery(fleet)
    assert sorted(told(fleet)) == sorted(tasks)


def typist_or_delivered(fleet: Fleet) -> None:
    """Wait until a task is being typed, or is gone already."""
    wait_for("it is typed", lambda: not waiting(fleet) or any(one.worker for one in waiting(fleet)))


@pytest.mark.parametrize("when", ["it waits", "it is typed", "it is typed and seen by nobody"])
def test_circusd_is_killed_and_the_next_one_has_it_typed_exactly_once(fleet: Fleet, when: str) -> None:
    missing = fleet.folder / "missing"
    if when == "it waits":
        fleet.agent("bob", autostart="False", working_dir=str(missing))
        fleet.start()
        assert fleet.ctl("wake", "bob", "--task", "add it up").code == 3
    else:
        fleet.agent("bob")
        fleet.start()
        (view,) = fleet.await_up("bob")
        fleet.await_screen("bob", "standin ready")
    with contextlib.ExitStack() as held:
        if when != "it waits":
            # Neither gets on before circusd is gone; then the agent, that shows what is pasted, does first.
            held.enter_context(frozen(view["pid"]))
            send(fleet, "add it up")
            worker = typist(fleet)
            os.kill(worker.pid, signal.SIGSTOP)
        fleet.end(signal.SIGKILL)
    if when != "it waits":
        process_table.send(worker, signal.SIGCONT)
    if when == "it is typed and seen by nobody":
        wait_for("the worker has ended", lambda: not process_table.may_run(worker), LONG)
        assert "add it up" in told(fleet)
    fleet.start()
    if when == "it waits":
        assert [task.text for task in waiting(fleet)] == ["add it up"]
        missing.mkdir()
        assert fleet.ctl("wake", "bob").code == 0
    await_delivery(fleet)
    fleet.end(signal.SIGKILL)
    fleet.start()
    fleet.await_ticks()
    found = prompts(missing / ".standin") if when == "it waits" else told(fleet)
    assert found.count("add it up") == 1


@pytest.mark.parametrize("known", [True, False], ids=["known to be wedged", "not noticed yet"])
def test_a_task_waits_for_a_server_that_does_not_answer(fleet: Fleet, known: bool) -> None:
    fleet.agent("bob")
    fleet.agent("eve")
    fleet.start()
    bob, _ = fleet.await_up("bob", "eve")
    fleet.await_screen("bob", "standin ready")
    with frozen(bob["server_pid"]):
        if known:
            wait_for("it is seen", lambda: fleet.view("bob")["state"] == "wedged")
        done = fleet.ctl("wake", "bob", "--task", "when you can")
        assert done.code == 0 and "task 1 is queued" in done.out, done
        # Meanwhile others get theirs.
        assert fleet.ctl("wake", "eve", "--task", "at once", "--waiting").code == 0
        if known:
            fleet.await_ticks()
            assert [(task.state, task.attempts) for task in waiting(fleet)] == [("queued", 0)]
        else:
            wait_for("it is seen", lambda: fleet.view("bob")["state"] == "wedged")
        assert fleet.prompts(fleet.launches("bob")[0].conversation) == []
    await_delivery(fleet)
    assert fleet.prompts(fleet.launches("bob")[0].conversation) == ["when you can"]
    assert fleet.view("bob")["pid"] == bob["pid"]


# -- the restart policy --------------------------------------------------------------------------------


def test_on_work_brings_back_who_died_with_a_queued_task_and_nobody_else(fleet: Fleet) -> None:
    fleet.guard(interval="0.5")
    for name in ("bob", "eve"):
        fleet.agent(name, failover__restart="on-work")
    fleet.start()
    bob, eve = fleet.await_up("bob", "eve")
    busy(fleet, 600)
    send(fleet, "unfinished")
    assert fleet.ctl("wake", "eve", "--task", "finished", "--waiting").code == 0
    for view in (bob, eve):
        os.kill(view["pid"], signal.SIGKILL)
    wait_for("bob is back", lambda: fleet.view("bob")["generation"] == 2)
    launch = fleet.begun("bob")
    assert launch.cause == "restart-policy"
    await_delivery(fleet)
    assert fleet.prompts(launch.conversation) == ["unfinished"]
    fleet.await_phase("eve", "down")
    await_ticks(fleet, "CrashLoopGuard")
    view = fleet.view("eve")
    assert (view["phase"], view["generation"]) == ("down", 1)
    # A task for it is a wake, so it comes up by that; its death without one is none to come back from.
    assert told(fleet).count("finished") == 1


def test_an_agent_that_is_refused_when_it_is_to_come_back_keeps_its_task(fleet: Fleet) -> None:
    fleet.guard(interval="0.5")
    home = with_account(fleet, "bob", failover__restart="on-work")
    fleet.start()
    (view,) = fleet.await_up("bob")
    busy(fleet, 600)
    send(fleet, "unfinished")
    typist(fleet)
    link = home / "projects"
    link.unlink()
    (link / "strange").mkdir(parents=True)
    os.kill(view["pid"], signal.SIGKILL)
    view = fleet.await_phase("bob", "refused")
    assert view["cause"] == "shared-state"
    await_state(fleet, "queued", "unfinished")
    done = fleet.ctl("wake", "bob")
    assert done.code == 3 and "projects" in done.err, done
    assert len(waiting(fleet)) == 1 and len(fleet.launches("bob")) == 1
    (link / "strange").rmdir()
    link.rmdir()
    link.symlink_to(fleet.folder / "shared" / "projects")
    assert fleet.ctl("wake", "bob").code == 0
    await_delivery(fleet)
    assert prompts(home, fleet.launches("bob")[0].conversation) == ["unfinished"]


def test_a_task_shows_in_fleet_and_explain_while_it_waits(fleet: Fleet) -> None:
    fleet.agent("bob", autostart="False", working_dir=str(fleet.folder / "missing"))
    fleet.start()
    assert fleet.ctl("wake", "bob", "--task", "look at me", "--topic", "ledger").code == 3
    assert fleet.view("bob")["tasks"] == 1
    explained: dict[str, Any] = fleet.call("explain", name="bob")
    (task,) = explained["tasks"]
    assert (task["begins"], task["topic"], task["state"]) == ("look at me", "ledger", "queued")
    shown = fleet.ctl("explain", "bob")
    assert shown.code == 0 and "task 1: queued" in shown.out and "look at me" in shown.out, shown
