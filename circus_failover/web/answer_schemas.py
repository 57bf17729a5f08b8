"""What the API answers, as JSON schemas: the keys that one can rely on, with their types. More may be there.

circusd's answers grow from version to version (fields are added, never renamed): these objects are open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from circus_failover.words import (
    AccountState,
    AssignmentState,
    Mode,
    Phase,
    Restart,
    State,
    TaskKind,
    Word,
)

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
YES_NO: Schema = {"type": "boolean"}
TIME: Schema = {"type": "number", "description": "epoch seconds"}
OPEN: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """Return a reference to one of these schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """Return the schema of something that may not be known: null then."""
    return {"anyOf": [schema, {"type": "null"}]}


def several(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """Return the schema of an object whose keys are names."""
    return {"type": "object", "additionalProperties": schema}


def word(words: Iterable[Word]) -> Schema:
    """Return the schema of a word of the design."""
    return {"type": "string", "enum": [str(one) for one in words]}


def always(description: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object that always has these properties."""
    schema: Schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {**schema, "description": description} if description else schema


AGENT = always(
    "an agent, as `failoverctl --json fleet` prints it; what is not known is null",
    identity=TEXT,
    phase=word(Phase),
    state=maybe(word(State)),
    reason=maybe(TEXT),
    cause=maybe(TEXT),
    runtime=maybe(TEXT),
    account=maybe(TEXT),
    pool=maybe(TEXT),
    mode=maybe(word(Mode)),
    restart=maybe(word(Restart)),
    generation=maybe(WHOLE),
    pid=maybe(WHOLE),
    session=maybe(TEXT),
    socket=maybe(TEXT),
    server_pid=maybe(WHOLE),
    since=maybe(TIME),
    last_activity=maybe(TIME),
    assignment=maybe(TEXT),
)

ANSWERS: Mapping[str, Schema] = {
    "Agent": AGENT,
    "Error": always("why it was not answered", error=TEXT),
    "Refusal": always(
        "circusd refused; `answer` is all that it said, also of those among several that came through",
        error=TEXT,
        answer=OPEN,
    ),
    "Verdict": always(
        "what became of one agent",
        identity=TEXT,
        ok=YES_NO,
        phase=word(Phase),
        cause=maybe(TEXT),
        generation=maybe(WHOLE),
        reason=maybe(TEXT),
    ),
    "VerbAnswer": {
        **always("what circusd answers; `agents` when the verb was about agents", status=TEXT, time=TIME),
        "properties": {"status": TEXT, "time": TIME, "agents": several(ref("Verdict"))},
    },
    "Host": always(
        "a circusd that is shown",
        name=TEXT,
        endpoint=TEXT,
        reachable=YES_NO,
        since=TIME,
        why=maybe(TEXT),
        local=YES_NO,
        version=maybe(TEXT),
        pid=maybe(WHOLE),
        trouble=maybe(TEXT),
        agents=WHOLE,
    ),
    "Hosts": always(hosts=several(ref("Host"))),
    "Fleet": always(agents=several(ref("Agent")), circusd=OPEN),
    "Launch": always(
        "one launch of an agent",
        identity=TEXT,
        generation=WHOLE,
        cause=maybe(TEXT),
        account=maybe(TEXT),
        conversation=maybe(TEXT),
        started_at=maybe(TIME),
        up_at=maybe(TIME),
        ended_at=maybe(TIME),
        end_cause=maybe(TEXT),
    ),
    "Explained": always(
        "an agent, why it is as it is, and what would happen next; `lines` as failoverctl prints it",
        agent=ref("Agent"),
        settings=maybe(OPEN),
        problems=maybe(TEXT),
        gate=TEXT,
        launches=several(ref("Launch")),
        lines=several(TEXT),
    ),
    "History": always(
        "decisions and launches, each the newest first",
        identity=TEXT,
        history=several(always(at=TIME, ev=TEXT)),
        launches=several(ref("Launch")),
    ),
    "UsageOfOne": always(
        "samples, the oldest first: cpu in percent of one core, memory in bytes",
        at=several(TIME),
        cpu=several(NUMBER),
        rss=several(NUMBER),
    ),
    "Usage": always(
        "the newest samples of every watcher; seconds between two of them",
        interval=NUMBER,
        trees=by_name(always(cpu=several(NUMBER), rss=several(NUMBER))),
    ),
    "Terminal": always(
        frame=always(
            "what the terminal shows; rows have colours as SGR escape sequences, and no other ones",
            cols=WHOLE,
            rows=WHOLE,
            screen=several(TEXT),
        )
    ),
    "Processes": always("by pid", name=TEXT, info=by_name({"type": ["object", "string"]})),
    "Account": always(
        name=TEXT,
        runtime=maybe(TEXT),
        state=word(AccountState),
        limit=maybe(TEXT),
        until=maybe(TIME),
        running=several(TEXT),
        agents=several(TEXT),
        max_agents=maybe(WHOLE),
    ),
    "Accounts": always(accounts=several(ref("Account"))),
    "Assignment": always(
        id=TEXT,
        state=word(AssignmentState),
        pool=maybe(TEXT),
        wanted=maybe(TEXT),
        owner=maybe(TEXT),
        queued_at=TIME,
        note=maybe(TEXT),
        who=TEXT,
        begins=TEXT,
        position=maybe(WHOLE),
    ),
    "Work": always(
        "the assignments, how many there are by state, and how many are not shown",
        assignments=several(ref("Assignment")),
        counts=by_name(WHOLE),
        more=WHOLE,
    ),
    "Task": always(
        id=WHOLE, agent=TEXT, state=TEXT, kind=word(TaskKind), queued_at=TIME, attempts=WHOLE, begins=TEXT
    ),
    "Tasks": always(tasks=several(ref("Task"))),
    "Death": always(
        "the end of a server with the deaths of its agents, or the death of one agent",
        what={"type": "string", "enum": ["server", "agent"]},
        at=TIME,
        cause=maybe(TEXT),
        signal=maybe(WHOLE),
        status=maybe(WHOLE),
        signal_name=maybe(TEXT),
        evidence=maybe(TEXT),
        forensics=maybe(TEXT),
        forensics_there=YES_NO,
        agents=several(always(identity=TEXT, generation=WHOLE, death=maybe(OPEN))),
    ),
    "Deaths": always(
        "the newest last; how many older ones are not shown",
        since=TIME,
        deaths=several(ref("Death")),
        more=WHOLE,
        notes=several(TEXT),
    ),
    "Forensics": {"type": "object", "description": "a snapshot, as the canary wrote it"},
    "WatcherRow": always(name=TEXT, status=TEXT, agent=YES_NO, pids=several(WHOLE)),
    "Watchers": always(watchers=several(ref("WatcherRow"))),
    "Watcher": always(
        "a watcher; an operator is also shown the values of its environment",
        name=TEXT,
        status=TEXT,
        options=OPEN,
        processes=by_name({"type": ["object", "string"]}),
        agent=YES_NO,
    ),
    "Sockets": always(sockets=several(always(fd=WHOLE, name=TEXT))),
    "Options": always(options=OPEN),
    "Circusd": always(info=OPEN),
}
