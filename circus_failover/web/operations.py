"""Everything the console's API can do, as two tables: what can be read, and which verbs can be sent.

The routes (`api`), the OpenAPI document (`openapi`) and the tables of the documentation are made from them,
so that none of the three can be out of date. Nothing here asks circusd: `reads` does, and `api` sends verbs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus_failover.web import reads, records_api, verb_bodies
from circus_failover.web.checking import Query
from circus_failover.words import Harm, Role

if TYPE_CHECKING:
    from circus_failover.web.reads import Asked

BASE = "/api/v1"
ANSWER_SECS = 10.0
"""How long circusd has to answer a verb that does not wait: a start is answered after 4 s, settled or not."""


@dataclass(frozen=True)
class Read:
    """Something that can be read with GET."""

    name: str
    path: str
    """Below BASE; {host}, {name} and {file} stand for one part of it each."""
    summary: str
    answer: Callable[[Asked], Awaitable[Mapping[str, Any]]]
    schema: str
    """The schema of what it answers, by its name in `answer_schemas`."""
    query: type[Query] = Query
    asks: tuple[str, ...] = ()
    """The verbs of circusd that it is made from."""


@dataclass(frozen=True)
class Verb:
    """A verb of circusd that can be sent with POST."""

    name: str
    summary: str
    model: type[verb_bodies.Body]
    harm: Harm = Harm.NONE
    role: Role = Role.OPERATOR
    timeout: float = ANSWER_SECS
    """Seconds to wait for the answer, unless the body asks to wait for the end."""

    def patience(self, properties: Mapping[str, Any]) -> float:
        """Return for how many seconds an answer to these properties is waited for."""
        if properties.get("waiting") or properties.get("delivered"):
            return verb_bodies.LONGEST_SECS
        return float(properties.get("secs", self.timeout))


_SLOW = verb_bodies.LONGEST_SECS
"""For verbs that may wait for an end without being asked to."""

VERBS: tuple[Verb, ...] = (
    # -- agents and other watchers
    Verb("start", "Start agents (through the gate) and other watchers", verb_bodies.Watchers),
    Verb("stop", "End agents and other watchers; they stay stopped", verb_bodies.Watchers, Harm.ENDS),
    Verb("restart", "End agents and other watchers, and bring them back", verb_bodies.Watchers, Harm.ENDS),
    Verb(
        "reload", "Replace the processes of watchers; agents are not touched", verb_bodies.Reload, Harm.ENDS
    ),
    Verb(
        "rm",
        "End and remove a watcher; tasks that wait are cancelled",
        verb_bodies.Remove,
        Harm.LOSES,
        timeout=_SLOW,
    ),
    # -- agents
    Verb("wake", "Bring agents up that are down, by resume or fresh", verb_bodies.Wake),
    Verb("park", "End agents so that their next wake is a resume", verb_bodies.WaitingAgents, Harm.ENDS),
    Verb("fresh", "End agents and begin anew, in a new conversation", verb_bodies.WaitingAgents, Harm.LOSES),
    Verb("reset", "Forget agents' crash loops", verb_bodies.Agents),
    Verb("tell", "Say something to an agent that is up, and see that it arrives", verb_bodies.Tell),
    Verb("keys", "Press keys in an agent's terminal", verb_bodies.Keys),
    Verb("switch", "Let agents go on on another account", verb_bodies.Switch, Harm.ENDS),
    Verb("nudge", "Remind an agent of the assignment that it has", verb_bodies.Nudge),
    Verb("purge", "Delete everything of an agent that is gone", verb_bodies.OneWatcher, Harm.LOSES),
    # -- work and accounts
    Verb("assign", "Give work to an agent or a pool", verb_bodies.Assign),
    Verb("release", "Take assignments from their owners", verb_bodies.Assignments),
    Verb("reassign", "Give assignments to another agent or pool", verb_bodies.Reassign),
    Verb("cancel", "Cancel assignments", verb_bodies.Assignments, Harm.LOSES),
    Verb("tasks", "List the tasks that wait, or cancel some", verb_bodies.Tasks, Harm.LOSES),
    Verb("accounts", "Show accounts, check them, or forget what is known of them", verb_bodies.Accounts),
    # -- Circus
    Verb("incr", "Add processes to a watcher", verb_bodies.Count),
    Verb("decr", "Take processes from a watcher", verb_bodies.Count, Harm.ENDS),
    Verb("set", "Set options of a watcher; some restart it", verb_bodies.Set, Harm.ENDS),
    Verb("signal", "Send a signal to a watcher's processes", verb_bodies.Signal, Harm.ENDS),
    Verb("kill", "End processes of a watcher, which Circus replaces", verb_bodies.Kill, Harm.ENDS),
    Verb("numprocesses", "Count processes", verb_bodies.Processes, role=Role.VIEWER),
    Verb(
        "reloadconfig",
        "Read circus.ini again; changed watchers are restarted, agents live on",
        verb_bodies.Waiting,
        Harm.ENDS,
        timeout=_SLOW,
    ),
)
BY_NAME = {verb.name: verb for verb in VERBS}

_PLUGINS = "a plugin asks or tells it; for people `explain` says the same"
LEFT_OUT: Mapping[str, str] = {
    "add": "a watcher that is added so is gone at the next reloadconfig: circus.ini is where it belongs",
    "get": "a part of `options`",
    "ipython": "a shell inside circusd, on its own terminal",
    "numwatchers": "a part of the watchers",
    "quit": "nothing could be asked of circusd afterwards, not even to come back: `failoverctl down`",
    **dict.fromkeys(("beats", "end-stuck", "half-open", "on-limit", "respawn", "seen", "ticked"), _PLUGINS),
    "self-request": "an agent asks it about itself",
}
"""The verbs of failoverctl that go to circusd and that the API has not, and why."""

_AGENT = "/hosts/{host}/agents/{name}"
_WATCHER = "/hosts/{host}/watchers/{name}"

READS: tuple[Read, ...] = (
    Read("hosts", "/hosts", "The circusds that are shown, and whether they answer", reads.hosts, "Hosts"),
    Read("agents", "/hosts/{host}/agents", "Every agent", reads.agents, "Fleet", asks=("fleet",)),
    Read(
        "agent",
        _AGENT,
        "Why an agent is as it is, and what would happen next",
        reads.agent,
        "Explained",
        asks=("explain",),
    ),
    Read(
        "agent_history",
        f"{_AGENT}/history",
        "What happened to an agent: decisions and launches",
        reads.history,
        "History",
        reads.HistoryQuery,
        ("history",),
    ),
    Read("agent_usage", f"{_AGENT}/usage", "What an agent's processes used", reads.usage_of, "UsageOfOne"),
    Read(
        "agent_terminal", f"{_AGENT}/terminal", "What an agent's terminal shows", reads.terminal, "Terminal"
    ),
    Read(
        "agent_processes",
        f"{_AGENT}/processes",
        "What Circus's own processes of an agent use",
        reads.processes,
        "Processes",
        asks=("stats",),
    ),
    Read(
        "usage",
        "/hosts/{host}/usage",
        "The last samples of what every watcher used",
        reads.usage,
        "Usage",
        reads.UsageQuery,
    ),
    Read(
        "accounts",
        "/hosts/{host}/accounts",
        "What is known of the accounts",
        reads.accounts,
        "Accounts",
        asks=("accounts",),
    ),
    Read(
        "work",
        "/hosts/{host}/work",
        "Assignments, in the order of their turn",
        reads.work,
        "Work",
        reads.WorkQuery,
        ("work",),
    ),
    Read(
        "tasks",
        "/hosts/{host}/tasks",
        "The tasks that wait for agents",
        reads.tasks,
        "Tasks",
        reads.TasksQuery,
        ("tasks",),
    ),
    Read(
        "deaths",
        "/hosts/{host}/deaths",
        "Which servers and agents died; of a local host",
        records_api.deaths,
        "Deaths",
        records_api.DeathsQuery,
    ),
    Read(
        "forensics",
        "/hosts/{host}/deaths/forensics/{file}",
        "What was found at a death; of a local host",
        records_api.forensics,
        "Forensics",
    ),
    Read(
        "watchers",
        "/hosts/{host}/watchers",
        "Every watcher",
        reads.watchers,
        "Watchers",
        asks=("status", "list"),
    ),
    Read(
        "watcher",
        _WATCHER,
        "A watcher with its options and processes",
        reads.watcher,
        "Watcher",
        asks=("status", "options", "stats"),
    ),
    Read("watcher_usage", f"{_WATCHER}/usage", "What a watcher used", reads.usage_of, "UsageOfOne"),
    Read(
        "sockets",
        "/hosts/{host}/sockets",
        "The sockets that circusd holds",
        reads.sockets,
        "Sockets",
        asks=("listsockets",),
    ),
    Read(
        "options",
        "/hosts/{host}/options",
        "circusd's own options",
        reads.options,
        "Options",
        asks=("globaloptions",),
    ),
    Read(
        "circusd",
        "/hosts/{host}/circusd",
        "What circusd itself uses",
        reads.circusd,
        "Circusd",
        asks=("dstats",),
    ),
)


def tables() -> str:
    """Return the tables of the documentation, in Markdown: the reads, the verbs, and what is left out."""
    lines = ["| GET | what it answers | parameters |", "|---|---|---|"]
    for read in READS:
        given = ", ".join(f"`{name}`" for name in read.query.model_fields) or "-"
        lines.append(f"| `{BASE}{read.path}` | {read.summary} | {given} |")
    lines += ["", f"| POST `{BASE}/hosts/{{host}}/verbs/...` | what it does | properties | harm |"]
    lines.append("|---|---|---|---|")
    for verb in VERBS:
        names = sorted(verb.model.model_fields, key=lambda name: name == "waiting")
        given = ", ".join(f"`{name}`" for name in names) or "-"
        lines.append(f"| `{verb.name}` | {verb.summary} | {given} | {verb.harm} |")
    lines += ["", "| not offered | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(LEFT_OUT.items())]
    return "\n".join(lines)
