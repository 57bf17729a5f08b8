"""Verbs wait their turn behind Circus's one running command, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from circus.exc import ConflictError
from circus.util import TransformableFuture, synchronized

from circus_failover.exclusive import Turns


class Arbiter:
    """What `circus.util.synchronized` needs of an arbiter, and two commands."""

    def __init__(self) -> None:
        self._exclusive_running_command: str | None = None
        self._restarting = False
        self.done: list[str] = []

    @synchronized("arbiter_work")
    def work(self, name: str, secs: float = 0.01) -> asyncio.Future[str]:
        return asyncio.ensure_future(self._work(name, secs))

    async def _work(self, name: str, secs: float) -> str:
        await asyncio.sleep(secs)
        self.done.append(name)
        return name

    @synchronized("arbiter_fail")
    def fail(self) -> asyncio.Future[None]:
        async def failing() -> None:
            await asyncio.sleep(0)
            raise OSError("no such thing")

        return asyncio.ensure_future(failing())


def run(scenario: Callable[[Arbiter, Turns], Any]) -> Any:
    """Run a scenario on a loop of its own, bounded."""

    async def bounded() -> Any:
        arbiter = Arbiter()
        return await asyncio.wait_for(scenario(arbiter, Turns(arbiter)), 10)

    return asyncio.run(bounded())


def test_without_us_a_second_command_conflicts() -> None:
    """The habit of Circus (0.19) that this module exists for."""

    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        arbiter.work("first")
        with pytest.raises(ConflictError):
            arbiter.work("second")

    run(scenario)


def test_a_command_runs_at_once_when_none_runs_and_its_result_comes_back() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        assert await turns.run(lambda: arbiter.work("one")) == "one"
        assert await turns.run(lambda: None) is None
        assert await turns.run(lambda: 7) == 7

    run(scenario)


def test_commands_wait_for_a_running_one_and_keep_their_order() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        arbiter.work("circus", 0.1)
        names = [f"ours {number}" for number in range(5)]
        results = await asyncio.gather(
            *(turns.run(lambda name=name: arbiter.work(name)) for name in names)  # type: ignore[misc]
        )
        assert list(results) == names
        assert arbiter.done == ["circus", *names]

    run(scenario)


def test_a_command_that_circus_slips_in_between_is_waited_for_too() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        tried = 0

        def conflicting() -> Any:
            nonlocal tried
            tried += 1
            if tried < 3:
                raise ConflictError("somebody else was faster")
            return arbiter.work("ours")

        assert await turns.run(conflicting) == "ours"
        assert tried == 3

    run(scenario)


def test_a_command_that_fails_raises_and_frees_the_queue() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        with pytest.raises(OSError, match="no such thing"):
            await turns.run(arbiter.fail)
        with pytest.raises(ZeroDivisionError):
            await turns.run(lambda: 1 // 0)
        assert await turns.run(lambda: arbiter.work("after")) == "after"
        assert arbiter._exclusive_running_command is None

    run(scenario)


def transformed(upstream: asyncio.Future[Any]) -> TransformableFuture:
    """Return what Circus's `reload NAME --waiting` returns."""
    future = TransformableFuture()
    future.set_upstream_future(upstream)
    future.set_transform_function(lambda result: {"info": result})
    return future


def test_a_transformed_future_is_waited_for() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        result = await turns.run(lambda: transformed(arbiter.work("kept")))
        assert result == {"info": "kept"}
        assert await turns.run(lambda: arbiter.work("after")) == "after"

    run(scenario)


def test_a_transformed_future_that_fails_raises_and_frees_the_queue() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        with pytest.raises(OSError, match="no such thing"):
            await turns.run(lambda: transformed(arbiter.fail()))
        assert await turns.run(lambda: arbiter.work("after")) == "after"

    run(scenario)


def test_a_caller_that_gives_up_frees_the_queue() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        arbiter.work("circus", 0.2)
        impatient = asyncio.ensure_future(turns.run(lambda: arbiter.work("never")))
        await asyncio.sleep(0.01)
        impatient.cancel()
        assert await turns.run(lambda: arbiter.work("after")) == "after"
        assert arbiter.done == ["circus", "after"]

    run(scenario)


def test_what_is_held_is_circuss_exclusive_command() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        seen: list[str | None] = []

        async def body() -> str:
            seen.append(arbiter._exclusive_running_command)
            with pytest.raises(ConflictError, match="watcher_start"):
                arbiter.work("conflicts")
            await asyncio.sleep(0.05)
            return "held"

        both = await asyncio.gather(
            turns.hold("watcher_start", body), turns.run(lambda: arbiter.work("behind it"))
        )
        assert both == ["held", "behind it"]
        assert seen == ["watcher_start"]
        assert arbiter._exclusive_running_command is None

    run(scenario)


def test_what_is_held_is_freed_when_it_fails_or_is_given_up() -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        async def failing() -> None:
            raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await turns.hold("watcher_start", failing)
        assert arbiter._exclusive_running_command is None
        given_up = asyncio.ensure_future(turns.hold("watcher_start", lambda: asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        assert arbiter._exclusive_running_command == "watcher_start"
        given_up.cancel()
        assert await turns.run(lambda: arbiter.work("after")) == "after"

    run(scenario)


@pytest.mark.parametrize("how", ["run", "hold"])
def test_a_circusd_that_restarts_itself_refuses_those_who_wait(how: str) -> None:
    async def scenario(arbiter: Arbiter, turns: Turns) -> None:
        arbiter.work("circus", 0.1)
        waiting = asyncio.ensure_future(
            turns.run(lambda: arbiter.work("late"))
            if how == "run"
            else turns.hold("watcher_start", lambda: asyncio.sleep(0))
        )
        await asyncio.sleep(0.01)
        arbiter._restarting = True
        with pytest.raises(ConflictError, match="restarting"):
            await waiting
        assert "late" not in arbiter.done

    run(scenario)
