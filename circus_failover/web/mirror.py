"""What is known of one circusd: its agents, its watchers, itself; and what an answer changes of that.

Pure: it is handed answers and says what is new in them. Views are replaced and never changed in place, so
that whoever was handed one may keep it; an unchanged one stays the same object.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

View = dict[str, Any]

AGENT_EVENT = "agent"
"""The last part of the topic of a change of an agent; every other kind of event is Circus's own."""
WATCHER_EVENTS = frozenset({"spawn", "reap", "kill", "start", "stop", "reload", "add", "remove", "updated"})
"""The kinds of events after which a watcher may be another one (Circus 0.19)."""
_CLOCK = {"last_tick": None}
"""What `fleet` says of circusd that is another at every answer."""


@dataclass(frozen=True)
class Changed:
    """What an answer of `fleet` changed."""

    agents: Sequence[View] = ()
    """The agents that are new or not as before."""
    removed: Sequence[str] = ()
    """The identities of those that are gone."""
    circusd: bool = False
    """What it says of itself is not as before, apart from its clock."""

    def __bool__(self) -> bool:
        return bool(self.agents or self.removed or self.circusd)


class Mirror:
    """One circusd as its last answers have it."""

    def __init__(self) -> None:
        self.agents: dict[str, View] = {}
        self.circusd: dict[str, Any] = {}
        self.watchers: dict[str, View] = {}
        self._turn = 0
        self._questions = 0
        self._newest_answer = 0
        self._answers: dict[str, int] = {}
        """By which question an agent was read by name, since the last answer that had all."""

    # -- agents ----------------------------------------------------------------------------------------

    def question(self) -> int:
        """Return the number of a question that is asked now: circusd answers a later one by what is newer."""
        self._questions += 1
        return self._questions

    def take_fleet(
        self, answer: Mapping[str, Any], question: int, asked: Collection[str] | None = None
    ) -> Changed:
        """Take in what `fleet` answered; what an answer to a later question said stays.

        Args:
            answer: the whole answer; an empty one is that of a circusd without agents.
            question: which question it answers.
            asked: the identities it was asked for; None: all.
        """
        before = self.circusd
        if question > self._newest_answer:
            circusd = answer.get("circusd")
            self.circusd = circusd if isinstance(circusd, dict) else {}
            self._newest_answer = question
        later = {name for name, number in self._answers.items() if number > question}
        views = answer.get("agents")
        found: dict[str, View] = {}
        for view in views if isinstance(views, list) else ():
            if isinstance(view, dict) and isinstance(view.get("identity"), str):
                found[view["identity"]] = view
        changed = [v for name, v in found.items() if name not in later and self.agents.get(name) != v]
        gone = self.agents.keys() - found.keys() - later if asked is None else ()
        removed = [name for name in self.agents if name in gone]
        if asked is None:
            self._answers = {name: self._answers[name] for name in later}
        else:
            self._answers.update((name, question) for name in found if name not in later)
        if changed or removed:
            agents = {**self.agents, **{view["identity"]: view for view in changed}}
            for name in removed:
                del agents[name]
            self.agents = dict(sorted(agents.items())) if agents.keys() != self.agents.keys() else agents
        return Changed(changed, removed, {**before, **_CLOCK} != {**self.circusd, **_CLOCK})

    # -- watchers --------------------------------------------------------------------------------------

    def take_statuses(self, statuses: Mapping[str, Any]) -> tuple[bool, list[str]]:
        """Take in what `status` answered.

        Returns:
            Whether anything changed, and the watchers whose processes are not known any more.
        """
        watchers: dict[str, View] = {}
        stale = []
        for name, status in sorted(statuses.items()):
            before = self.watchers.get(name)
            view = {"name": name, "status": str(status), "agent": name in self.agents}
            if before is None or before["status"] != view["status"]:
                stale.append(name)
            if before is not None and all(before[key] == view[key] for key in view):
                watchers[name] = before
            else:
                watchers[name] = {**view, "pids": before["pids"] if before is not None else []}
        changed = watchers != self.watchers
        self.watchers = watchers
        return changed, stale

    def take_pids(self, pids: Mapping[str, Sequence[int]]) -> bool:
        """Take in which processes watchers have; says whether anything changed."""
        watchers = dict(self.watchers)
        for name, found in pids.items():
            view = watchers.get(name)
            if view is not None and view["pids"] != list(found):
                watchers[name] = {**view, "pids": list(found)}
        changed = watchers != self.watchers
        self.watchers = watchers
        return changed

    def named(self, topics: Collection[str]) -> list[str]:
        """Return the watchers that events speak of: a topic has a name in lower case (Circus 0.19)."""
        return [name for name in self.watchers if topic_name(name) in topics]

    def in_turn(self, most: int) -> list[str]:
        """Return the next watchers to be looked at although nothing was heard of them: all, by and by."""
        names = [*self.watchers]
        if len(names) <= most:
            return names
        begin = self._turn % len(names)
        self._turn = begin + most
        return [*names[begin : begin + most], *names[: max(0, begin + most - len(names))]]


def topic_name(name: str) -> str:
    """Return a watcher's name as it is in the topics of its events (Circus 0.19: `Watcher.res_name`)."""
    return name.lower().replace(" ", "_")


def parse_topic(topic: str) -> tuple[str, str] | None:
    """Return a topic's watcher and its kind; None when it is about no watcher. A name may have dots."""
    prefix, _, rest = topic.partition(".")
    name, dot, kind = rest.rpartition(".")
    return (name, kind) if prefix == "watcher" and dot else None
