"""What a terminal shows while circusd carries out a verb: how many of its agents are where they are to be.

A second client asks `fleet` meanwhile, in a thread of its own; whatever goes wrong there is not shown and
delays nothing. Where standard error is no terminal, nothing is asked or shown.
"""

from __future__ import annotations

import contextlib
import fnmatch
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

ASK_SECS = 0.5
GOALS = {
    "wake": ("up",),
    "start": ("up",),
    "restart": ("up",),
    "fresh": ("up",),
    "park": ("parked", "stopped", "down"),
    "stop": ("stopped",),
}
"""The phases in which a verb is done with an agent."""


@contextlib.contextmanager
def shown(verb: str, message: dict[str, Any], endpoint: str) -> Iterator[None]:
    """Show, while the block runs, that circusd is at it, and for several agents how far it is.

    Args:
        verb: the verb that was sent.
        message: its message, of which the names count.
        endpoint: where circusd listens.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    properties = message.get("properties", {})
    names = [str(name) for name in properties.get("names") or [properties.get("name", "*")]]
    several = verb in GOALS and (len(names) > 1 or any(mark in names[0] for mark in "*?["))
    with Console(stderr=True).status(f"{verb}: waiting for circusd") as status:
        if not several:
            yield
            return
        with watching(endpoint, lambda agents: status.update(Text(progress(verb, names, agents)))):
            yield


@contextlib.contextmanager
def watching(endpoint: str, tell: Callable[[list[dict[str, Any]]], None]) -> Iterator[None]:
    """Tell every half a second, while the block runs, what `fleet` says; nothing where nobody could see it.

    Args:
        endpoint: where circusd listens.
        tell: gets the agents, in a thread of its own.
    """
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(endpoint, over, tell), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(ASK_SECS)


def _watch(endpoint: str, over: threading.Event, tell: Callable[[list[dict[str, Any]]], None]) -> None:
    import zmq
    from circus.client import CircusClient
    from circus.exc import CallError

    with contextlib.suppress(CallError, zmq.ZMQError, OSError, KeyError):
        # A context of its own: a socket must not be used by two threads, and the main one ends its own.
        context = zmq.Context()
        client = CircusClient(context=context, endpoint=endpoint, timeout=ASK_SECS)
        try:
            while not over.wait(ASK_SECS):
                with contextlib.suppress(CallError):
                    tell(client.send_message("fleet")["agents"])
        finally:
            client.stop()
            context.term()


def progress(verb: str, names: list[str], agents: list[dict[str, Any]]) -> str:
    """Return one line about the agents that a verb is about.

    Args:
        verb: one of `GOALS`.
        names: names or globs, as Circus matches them.
        agents: what `fleet` says.
    """
    phases: dict[str, int] = {}
    for agent in agents:
        if any(fnmatch.fnmatchcase(str(agent["identity"]), name.lower()) for name in names):
            phases[str(agent["phase"])] = phases.get(str(agent["phase"]), 0) + 1
    total = sum(phases.values())
    done = sum(phases.get(phase, 0) for phase in GOALS[verb])
    others = [f"{number} {phase}" for phase, number in sorted(phases.items()) if phase not in GOALS[verb]]
    rest = f" ({', '.join(others)})" if others else ""
    width = 30
    filled = width * done // total if total else 0
    return f"{verb} [{'━' * filled}{'·' * (width - filled)}] {done} of {total} {GOALS[verb][0]}{rest}"


def assignment_progress(item: dict[str, Any], secs: float, *, lost: bool) -> str:
    """Return one line about an assignment that is waited for.

    Args:
        item: what front ends show of it.
        secs: how long it was waited for.
        lost: circusd does not answer.
    """
    owner = f" in {item['owner']}" if item["owner"] else ""
    place = f" (position {item['position']})" if not owner and item.get("position") else ""
    gone = "; circusd does not answer" if lost else ""
    return f"{item['id']}: {item['state']}{owner}{place}, {secs:.0f} s{gone}"
