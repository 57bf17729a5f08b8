"""The store: what must be true after a crash. The one module that holds SQL.

Only circusd writes (`Store`); everybody may read (`open_reader`). One transaction is one decision.
Intents and ends are committed with `synchronous=FULL`, so that they survive a power cut; launches and
adoptions with NORMAL, since no agent survives a power cut either. The SQL is plain enough for
PostgreSQL: no rowid tricks, no SQLite functions.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from circus_failover.process_table import ProcessId
from circus_failover.records import (
    AccountRow,
    ActionRow,
    AgentRow,
    AssignmentRow,
    ChildRow,
    LaunchRow,
    NoticeRow,
    PluginRow,
    ServerExitRow,
    TaskRow,
)

SCHEMA_VERSION = 6

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS agents (
    identity TEXT PRIMARY KEY,
    phase TEXT NOT NULL, reason TEXT, cause TEXT, since REAL NOT NULL,
    stay_stopped INTEGER NOT NULL, generation INTEGER NOT NULL,
    socket TEXT, own_server INTEGER NOT NULL, session TEXT, pane TEXT,
    pid INTEGER, pid_start INTEGER, server_pid INTEGER, server_start INTEGER,
    boot TEXT, account TEXT, launch TEXT, conversation TEXT, declared INTEGER NOT NULL,
    ready_at REAL, ready_ticks INTEGER, ready_conversation TEXT,
    parked_by TEXT, parked_at REAL, parked_conversation TEXT,
    born INTEGER NOT NULL DEFAULT 0, pending TEXT,
    loop TEXT NOT NULL DEFAULT 'closed', loop_until REAL,
    loop_failures INTEGER NOT NULL DEFAULT 0, loop_from INTEGER NOT NULL DEFAULT 0,
    last_task REAL, policy TEXT NOT NULL DEFAULT '{}', uncleared INTEGER,
    runtime TEXT, home TEXT, working_dir TEXT, launched_at REAL, health TEXT, pushed TEXT,
    switched_to TEXT, switched_from TEXT, switching TEXT, limited_until REAL, interrupted TEXT
);
CREATE TABLE IF NOT EXISTS launches (
    identity TEXT NOT NULL, generation INTEGER NOT NULL,
    cause TEXT NOT NULL, asked_by TEXT NOT NULL, account TEXT, conversation TEXT,
    started_at REAL NOT NULL, up_at REAL, ended_at REAL,
    planned INTEGER, end_cause TEXT, exit_status INTEGER, exit_signal INTEGER,
    last_output TEXT, mode TEXT, wake_cause TEXT, parked_by TEXT, topic TEXT, assignment TEXT,
    PRIMARY KEY (identity, generation)
);
CREATE INDEX IF NOT EXISTS launches_ended ON launches (ended_at);
CREATE TABLE IF NOT EXISTS actions (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL, generation INTEGER NOT NULL,
    intent TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL, asked_at REAL NOT NULL,
    spec TEXT NOT NULL, attempts INTEGER NOT NULL, worker_pid INTEGER, worker_start INTEGER,
    done_at REAL, outcome TEXT
);
CREATE INDEX IF NOT EXISTS actions_open ON actions (done_at, identity);
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, identity TEXT NOT NULL, generation INTEGER,
    ev TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS history_identity ON history (identity, id);
CREATE TABLE IF NOT EXISTS children (
    pid INTEGER NOT NULL, start INTEGER NOT NULL, boot TEXT NOT NULL,
    kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (pid, start)
);
CREATE TABLE IF NOT EXISTS taken_in (name TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL, text TEXT NOT NULL, topic TEXT,
    who TEXT NOT NULL, queued_at REAL NOT NULL, state TEXT NOT NULL, first INTEGER NOT NULL,
    attempts INTEGER NOT NULL, generation INTEGER, worker_pid INTEGER, worker_start INTEGER,
    done_at REAL, note TEXT, kind TEXT NOT NULL DEFAULT 'task', assignment TEXT, expires_at REAL
);
CREATE INDEX IF NOT EXISTS tasks_open ON tasks (done_at, identity);
CREATE TABLE IF NOT EXISTS topics (
    conversation TEXT NOT NULL, topic TEXT NOT NULL, identity TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (conversation, topic)
);
CREATE TABLE IF NOT EXISTS plugins (
    name TEXT PRIMARY KEY, pid INTEGER NOT NULL, at REAL NOT NULL, secs REAL NOT NULL,
    interval REAL NOT NULL, ticks INTEGER NOT NULL, errors INTEGER NOT NULL, last_error TEXT,
    detail TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS server_exits (
    boot TEXT NOT NULL, pid INTEGER NOT NULL, start INTEGER NOT NULL, socket TEXT NOT NULL,
    at REAL NOT NULL, up REAL, signal INTEGER, status INTEGER, how TEXT NOT NULL, cause TEXT NOT NULL,
    detected TEXT NOT NULL, seen REAL, evidence TEXT NOT NULL, forensics TEXT, agents TEXT NOT NULL,
    PRIMARY KEY (boot, pid, start)
);
CREATE INDEX IF NOT EXISTS server_exits_at ON server_exits (at);
CREATE TABLE IF NOT EXISTS assignments (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, who TEXT NOT NULL,
    queued_at REAL NOT NULL, topic TEXT, wanted TEXT, pool TEXT, owner TEXT, state TEXT NOT NULL,
    dispatched_at REAL, delivered_at REAL, working_at REAL, done_at REAL,
    generation INTEGER, conversation TEXT, task INTEGER,
    retries INTEGER NOT NULL, orphanings INTEGER NOT NULL, interrupted TEXT, last_owner TEXT, note TEXT
);
CREATE INDEX IF NOT EXISTS assignments_open ON assignments (done_at, number);
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, runtime TEXT NOT NULL, state TEXT NOT NULL, limit_name TEXT, until REAL, text TEXT,
    since REAL, seen_at REAL, seen_by TEXT, source TEXT, answered_at REAL, used_at REAL,
    models TEXT NOT NULL, usage TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS notices (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, identity TEXT, key TEXT NOT NULL,
    text TEXT NOT NULL, detail TEXT NOT NULL
);
"""

_ADDED = {
    2: {
        "agents": [
            *("ready_at REAL", "ready_ticks INTEGER", "ready_conversation TEXT"),
            *("parked_by TEXT", "parked_at REAL", "parked_conversation TEXT"),
            *("born INTEGER NOT NULL DEFAULT 0", "pending TEXT"),
            *("loop TEXT NOT NULL DEFAULT 'closed'", "loop_until REAL"),
            *("loop_failures INTEGER NOT NULL DEFAULT 0", "loop_from INTEGER NOT NULL DEFAULT 0"),
            *("last_task REAL", "policy TEXT NOT NULL DEFAULT '{}'"),
        ],
        "launches": ["mode TEXT", "wake_cause TEXT", "parked_by TEXT", "topic TEXT"],
    },
    3: {"agents": ["uncleared INTEGER"]},
    4: {
        "agents": [
            *("runtime TEXT", "home TEXT", "working_dir TEXT"),
            *("launched_at REAL", "health TEXT", "pushed TEXT"),
        ]
    },
    5: {
        "launches": ["assignment TEXT"],
        "tasks": ["kind TEXT NOT NULL DEFAULT 'task'", "assignment TEXT", "expires_at REAL"],
    },
    6: {
        "agents": [
            *("switched_to TEXT", "switched_from TEXT", "switching TEXT"),
            *("limited_until REAL", "interrupted TEXT"),
        ]
    },
}
"""Columns that came with a version, by table: a store of an earlier one gets them when it is opened."""
_MADE_IN = {"tasks": 2}
"""The version that brought a table to which columns were added later, where that is not the first."""
_FILLED = {
    2: [
        "UPDATE agents SET ready_conversation = conversation, ready_at = COALESCE("
        "(SELECT l.up_at FROM launches l WHERE l.identity = agents.identity"
        " AND l.generation = agents.generation), since) WHERE phase = 'up'",
        "UPDATE agents SET born = generation, loop_from = generation WHERE cause = 'removed'",
    ],
    3: [],
    4: ["UPDATE agents SET runtime = 'command'"],
    5: [],
    6: [],
}
"""What those columns hold for what is remembered: agents live through an upgrade."""

REMEDY = (
    "Free it or repair it (sqlite3 failover.db .recover), or move it away: agents live on, "
    "their history does not"
)
BUSY_MS = 100
"""How long a write waits for somebody else's lock: circusd's only loop waits with it, and retries later."""


class StoreError(Exception):
    """The store cannot be used; the text says which file, why, and what to do."""


_BOOLEANS = {"stay_stopped", "own_server", "declared", "planned", "first"}
_AGENT_COLUMNS = [field.name for field in fields(AgentRow)]
_AGENT_BOOLEANS = [index for index, name in enumerate(_AGENT_COLUMNS) if name in _BOOLEANS]
_LAUNCH_COLUMNS = [field.name for field in fields(LaunchRow)]
_ACTION_COLUMNS = [field.name for field in fields(ActionRow)]
_TASK_COLUMNS = [field.name for field in fields(TaskRow)]
_ASSIGNMENT_COLUMNS = [field.name for field in fields(AssignmentRow)]
_ACCOUNT_COLUMNS = [field.name for field in fields(AccountRow)]
_PLUGIN_COLUMNS = [field.name for field in fields(PluginRow)]
_SERVER_EXIT_COLUMNS = [field.name for field in fields(ServerExitRow)]
_OPEN_TASK = "state IN ('queued', 'typing')"


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    values = dict(zip(row.keys(), row, strict=True))
    for name in _BOOLEANS & values.keys():
        values[name] = None if values[name] is None else bool(values[name])
    for name in {"spec", "agents"} & values.keys():
        values[name] = json.loads(values[name])
    return values


def _agent(row: sqlite3.Row) -> AgentRow:
    """Return an agent's row. Every tick of a plugin reads all of them, so its fields are set all at once:
    the constructor of a frozen dataclass sets 41 of them one by one, which takes twice as long.
    """
    values = list(row)
    for index in _AGENT_BOOLEANS:
        values[index] = bool(values[index])
    agent = object.__new__(AgentRow)
    agent.__dict__.update(zip(_AGENT_COLUMNS, values, strict=True))
    return agent


class Reader:
    """Questions anybody may ask the store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._db.row_factory = sqlite3.Row

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            return self._db.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be read: {error}. {REMEDY}") from error

    def agents(self, *phases: str) -> dict[str, AgentRow]:
        """Return every agent that is remembered, or that is in one of these phases, by identity."""
        where = f" WHERE phase IN ({', '.join('?' for _ in phases)})" if phases else ""
        rows = self._rows(f"SELECT {', '.join(_AGENT_COLUMNS)} FROM agents{where} ORDER BY identity", phases)
        return {row["identity"]: _agent(row) for row in rows}

    def agent(self, identity: str) -> AgentRow | None:
        """Return what is remembered of one agent."""
        rows = self._rows(f"SELECT {', '.join(_AGENT_COLUMNS)} FROM agents WHERE identity = ?", (identity,))
        return AgentRow(**_plain(rows[0])) if rows else None

    def holders(self, conversation: str) -> list[AgentRow]:
        """Return the agents whose recorded launch is in this conversation."""
        where = " WHERE conversation = ? ORDER BY identity"
        rows = self._rows(f"SELECT {', '.join(_AGENT_COLUMNS)} FROM agents{where}", (conversation,))
        return [_agent(row) for row in rows]

    def launches(self, identity: str, limit: int = 20) -> list[LaunchRow]:
        """Return an agent's launches, the newest first."""
        rows = self._rows(
            f"SELECT {', '.join(_LAUNCH_COLUMNS)} FROM launches WHERE identity = ?"
            " ORDER BY generation DESC LIMIT ?",
            (identity, limit),
        )
        return [LaunchRow(**_plain(row)) for row in rows]

    def accounts(self) -> dict[str, AccountRow]:
        """Return what is known of every account, by name."""
        rows = self._rows(f"SELECT {', '.join(_ACCOUNT_COLUMNS)} FROM accounts ORDER BY name")
        return {row["name"]: AccountRow(**_plain(row)) for row in rows}

    def open_actions(self) -> list[ActionRow]:
        """Return the deliberate ends that are not finished, the oldest first."""
        rows = self._rows(
            f"SELECT {', '.join(_ACTION_COLUMNS)} FROM actions WHERE done_at IS NULL ORDER BY id"
        )
        return [ActionRow(**_plain(row)) for row in rows]

    def open_action(self, identity: str) -> ActionRow | None:
        """Return the deliberate end of an agent that is not finished, if there is one."""
        rows = self._rows(
            f"SELECT {', '.join(_ACTION_COLUMNS)} FROM actions WHERE done_at IS NULL AND identity = ?"
            " ORDER BY id DESC LIMIT 1",
            (identity,),
        )
        return ActionRow(**_plain(rows[0])) if rows else None

    def actions(self, identity: str, limit: int = 20) -> list[ActionRow]:
        """Return an agent's deliberate ends, the newest first."""
        rows = self._rows(
            f"SELECT {', '.join(_ACTION_COLUMNS)} FROM actions WHERE identity = ? ORDER BY id DESC LIMIT ?",
            (identity, limit),
        )
        return [ActionRow(**_plain(row)) for row in rows]

    def history(self, identity: str, limit: int = 50) -> list[dict[str, Any]]:
        """Return an agent's decisions, the newest first: `at`, `generation`, `ev` and their details."""
        rows = self._rows(
            "SELECT at, generation, ev, detail FROM history WHERE identity = ? ORDER BY id DESC LIMIT ?",
            (identity, limit),
        )
        return [
            {"at": row["at"], "generation": row["generation"], "ev": row["ev"], **json.loads(row["detail"])}
            for row in rows
        ]

    def happened(self, after: int, events: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """Return decisions about all agents, the oldest first: their id, when, of whom, `ev` and `detail`.

        Args:
            after: only those with a greater id.
            events: only these (`ev`).
            limit: at most so many.
        """
        rows = self._rows(
            "SELECT id, at, identity, generation, ev, detail FROM history WHERE id > ?"
            f" AND ev IN ({', '.join('?' for _ in events)}) ORDER BY id LIMIT ?",
            (after, *events, limit),
        )
        return [{**_plain(row), "detail": json.loads(row["detail"])} for row in rows]

    def newest_decision(self) -> int:
        """Return the id of the newest decision about any agent; 0 when there is none."""
        return int(self._rows("SELECT COALESCE(MAX(id), 0) AS id FROM history")[0]["id"])

    def last_causes(self) -> dict[str, str]:
        """Return how each agent's newest ended launch ended, by identity."""
        rows = self._rows(
            "SELECT l.identity, l.end_cause FROM launches l JOIN (SELECT identity, MAX(generation) AS newest"
            " FROM launches WHERE end_cause IS NOT NULL GROUP BY identity) m"
            " ON l.identity = m.identity AND l.generation = m.newest"
        )
        return {row["identity"]: row["end_cause"] for row in rows}

    def children(self) -> list[ChildRow]:
        """Return the plugins and keepers that were started and not seen to end."""
        rows = self._rows("SELECT pid, start, boot, kind, name FROM children")
        return [
            ChildRow(ProcessId(row["pid"], row["start"]), row["boot"], row["kind"], row["name"])
            for row in rows
        ]

    def ended_launches(self, identity: str, after: int, limit: int = 200) -> list[LaunchRow]:
        """Return an agent's ended launches after a generation, the newest first."""
        rows = self._rows(
            f"SELECT {', '.join(_LAUNCH_COLUMNS)} FROM launches WHERE identity = ? AND generation > ?"
            " AND ended_at IS NOT NULL ORDER BY generation DESC LIMIT ?",
            (identity, after, limit),
        )
        return [LaunchRow(**_plain(row)) for row in rows]

    def launches_since(self, at: float) -> list[LaunchRow]:
        """Return the launches of all agents that live, or began or ended since a time, the oldest first."""
        rows = self._rows(
            f"SELECT {', '.join(_LAUNCH_COLUMNS)} FROM launches WHERE started_at >= ? OR ended_at >= ?"
            " OR ended_at IS NULL ORDER BY started_at, identity",
            (at, at),
        )
        return [LaunchRow(**_plain(row)) for row in rows]

    def deaths_since(self, at: float, limit: int = 1000) -> list[LaunchRow]:
        """Return the launches of all agents that ended by themselves since a time, the newest first."""
        rows = self._rows(
            f"SELECT {', '.join(_LAUNCH_COLUMNS)} FROM launches WHERE ended_at >= ? AND planned = 0"
            " ORDER BY ended_at DESC, identity LIMIT ?",
            (at, limit),
        )
        return [LaunchRow(**_plain(row)) for row in rows]

    def server_exits(self, since: float = 0.0, limit: int = 1000) -> list[ServerExitRow]:
        """Return the ends of tmux servers that nobody meant, since a time, the newest first."""
        rows = self._rows(
            f"SELECT {', '.join(_SERVER_EXIT_COLUMNS)} FROM server_exits WHERE at >= ?"
            " ORDER BY at DESC, pid LIMIT ?",
            (since, limit),
        )
        return [ServerExitRow(**_plain(row)) for row in rows]

    def server_exit_counts(self) -> dict[tuple[str, str], int]:
        """Return how many tmux servers ended that nobody meant to end, by cause and when that was noticed."""
        rows = self._rows("SELECT cause, detected, COUNT(*) AS n FROM server_exits GROUP BY cause, detected")
        return {(row["cause"], row["detected"]): row["n"] for row in rows}

    def server_exit(self, boot: str, server: ProcessId) -> ServerExitRow | None:
        """Return how one tmux server ended, if that was recorded."""
        rows = self._rows(
            f"SELECT {', '.join(_SERVER_EXIT_COLUMNS)} FROM server_exits"
            " WHERE boot = ? AND pid = ? AND start = ?",
            (boot, *server),
        )
        return ServerExitRow(**_plain(rows[0])) if rows else None

    def tasks(self, identity: str | None = None, limit: int = 1000) -> list[TaskRow]:
        """Return the tasks that wait or are being typed, of one agent or all, in the order of their turn."""
        where, parameters = (" AND identity = ?", (identity,)) if identity is not None else ("", ())
        rows = self._rows(
            f"SELECT {', '.join(_TASK_COLUMNS)} FROM tasks WHERE {_OPEN_TASK}{where}"
            " ORDER BY identity, first DESC, id LIMIT ?",
            (*parameters, limit),
        )
        return [TaskRow(**_plain(row)) for row in rows]

    def task(self, number: int) -> TaskRow | None:
        """Return one task, wherever it is."""
        rows = self._rows(f"SELECT {', '.join(_TASK_COLUMNS)} FROM tasks WHERE id = ?", (number,))
        return TaskRow(**_plain(rows[0])) if rows else None

    def delivered(self, identity: str, limit: int = 100) -> list[TaskRow]:
        """Return the newest tasks that an agent was seen to have taken, in that order."""
        rows = self._rows(
            f"SELECT {', '.join(_TASK_COLUMNS)} FROM tasks WHERE identity = ? AND state = 'delivered'"
            " ORDER BY done_at DESC, id DESC LIMIT ?",
            (identity, limit),
        )
        return [TaskRow(**_plain(row)) for row in reversed(rows)]

    def waiting(self) -> dict[str, int]:
        """Return how many tasks wait, by identity; an agent without one is not in it."""
        rows = self._rows(f"SELECT identity, COUNT(*) AS n FROM tasks WHERE {_OPEN_TASK} GROUP BY identity")
        return {row["identity"]: row["n"] for row in rows}

    def task_counts(self) -> list[tuple[str, str, int, float]]:
        """Return what waits for agents or is being typed, without the texts.

        Returns:
            Kind, state, how many, and the epoch seconds since when the oldest waits.
        """
        rows = self._rows(
            "SELECT kind, state, COUNT(*) AS n, MIN(queued_at) AS oldest FROM tasks"
            f" WHERE {_OPEN_TASK} GROUP BY kind, state ORDER BY kind, state"
        )
        return [(row["kind"], row["state"], row["n"], row["oldest"]) for row in rows]

    def assignment_counts(self) -> list[tuple[str, str, bool, int, float, int]]:
        """Return the assignments that are not over, without the texts.

        Returns:
            State, pool (empty: none), whether they have an owner, how many, the epoch seconds since when the
            oldest waits, and the greatest number of retries.
        """
        rows = self._rows(
            "SELECT state, COALESCE(pool, '') AS pool, owner IS NOT NULL AS owned, COUNT(*) AS n,"
            " MIN(queued_at) AS oldest, MAX(retries) AS retries FROM assignments WHERE done_at IS NULL"
            " GROUP BY state, COALESCE(pool, ''), owner IS NOT NULL"
        )
        return [
            (row["state"], row["pool"], bool(row["owned"]), row["n"], row["oldest"], row["retries"])
            for row in rows
        ]

    def assignments(
        self, *, over_since: float | None = None, owner: str | None = None
    ) -> list[AssignmentRow]:
        """Return the assignments that are not over, in the order of their turn.

        Args:
            over_since: also those that were over since then, in epoch seconds.
            owner: only those of this agent.
        """
        where = "done_at IS NULL" if over_since is None else "(done_at IS NULL OR done_at >= ?)"
        parameters: list[object] = [] if over_since is None else [over_since]
        if owner is not None:
            where += " AND owner = ?"
            parameters.append(owner)
        rows = self._rows(
            f"SELECT {', '.join(_ASSIGNMENT_COLUMNS)} FROM assignments WHERE {where} ORDER BY number",
            parameters,
        )
        return [AssignmentRow(*row) for row in rows]

    def assignment(self, name: str) -> AssignmentRow | None:
        """Return one assignment by its id, wherever it is."""
        rows = self._rows(f"SELECT {', '.join(_ASSIGNMENT_COLUMNS)} FROM assignments WHERE id = ?", (name,))
        return AssignmentRow(*rows[0]) if rows else None

    def assigned(self) -> dict[str, str]:
        """Return the id of the assignment that each agent has, or that waits for it by name, by identity."""
        rows = self._rows(
            "SELECT COALESCE(owner, wanted) AS identity, id FROM assignments"
            " WHERE done_at IS NULL AND state <> 'orphaned' AND COALESCE(owner, wanted) IS NOT NULL"
            " ORDER BY number DESC"
        )
        return {row["identity"]: row["id"] for row in rows}

    def notices(self, after: int, limit: int = 1000) -> list[NoticeRow]:
        """Return the notices after one of this id, the oldest first."""
        rows = self._rows(
            "SELECT id, at, kind, identity, key, text, detail FROM notices WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [NoticeRow(**{**_plain(row), "detail": json.loads(row["detail"])}) for row in rows]

    def newest_notice(self) -> int:
        """Return the id of the newest notice; 0 when there is none."""
        return int(self._rows("SELECT COALESCE(MAX(id), 0) AS id FROM notices")[0]["id"])

    def knows_topic(self, conversation: str, topic: str) -> bool:
        """Say whether a topic was delivered in a conversation."""
        return bool(
            self._rows(
                "SELECT 1 FROM topics WHERE conversation = ? AND topic = ?",
                (conversation, topic),
            )
        )

    def plugins(self) -> dict[str, PluginRow]:
        """Return what each plugin last said of itself, by name."""
        rows = self._rows(f"SELECT {', '.join(_PLUGIN_COLUMNS)} FROM plugins ORDER BY name")
        return {row["name"]: PluginRow(**_plain(row)) for row in rows}

    def seen(self, report: str) -> bool:
        """Say whether a report of this name was taken in."""
        return bool(self._rows("SELECT 1 FROM taken_in WHERE name = ?", (report,)))

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class Store(Reader):
    """The store as circusd holds it: the only writer."""

    def __init__(self, path: Path) -> None:
        """Open or create the store.

        Args:
            path: the database file; its folder must exist and be this user's.

        Raises:
            StoreError: it is corrupt, not writable, locked, or from a newer version.
        """
        self.path = path
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(handle)
            connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            super().__init__(connection)
            connection.executescript(_SCHEMA)
            self._file = _file_id(path)
            self._check_version()
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StoreError(f"the store {path} cannot be used: {error}. {REMEDY}") from error

    def _check_version(self) -> None:
        row = self._db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if row is None:
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        elif int(row["value"]) < SCHEMA_VERSION:
            self._upgrade(int(row["value"]))
        elif int(row["value"]) > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.path} has schema {row['value']}, this version knows {SCHEMA_VERSION}: "
                "install the newer circus-failover"
            )

    def _upgrade(self, version: int) -> None:
        """Add what came since a version, in one transaction."""
        with self.decision(durable=True):
            for number in range(version + 1, SCHEMA_VERSION + 1):
                for table, columns in _ADDED[number].items():
                    if _MADE_IN.get(table, 1) > version:
                        continue  # it is new to this store, and was made as it is now
                    for column in columns:
                        self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
                for statement in _FILLED[number]:
                    self._db.execute(statement)
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (str(SCHEMA_VERSION),))

    @contextmanager
    def decision(self, *, durable: bool) -> Iterator[None]:
        """One transaction: all of it is stored, or nothing is.

        Args:
            durable: also survive a power cut (`synchronous=FULL`), for intents and ends.

        Raises:
            StoreError: it could not be stored; nothing was.
        """
        if _file_id(self.path) != self._file:
            # SQLite goes on writing into the unlinked file, and the next circusd would know nothing of it.
            raise StoreError(f"the store {self.path} was removed or replaced while in use: restart circusd")
        try:
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} cannot be written: {error}") from error
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"the store {self.path} cannot be written: {error}") from error
            raise

    def put_agent(self, row: AgentRow) -> None:
        """Insert or replace what is remembered of an agent."""
        names = ", ".join(_AGENT_COLUMNS)
        marks = ", ".join("?" for _ in _AGENT_COLUMNS)
        updates = ", ".join(f"{name} = excluded.{name}" for name in _AGENT_COLUMNS[1:])
        self._db.execute(
            f"INSERT INTO agents ({names}) VALUES ({marks}) ON CONFLICT (identity) DO UPDATE SET {updates}",
            [getattr(row, name) for name in _AGENT_COLUMNS],
        )

    def add_launch(self, row: LaunchRow) -> None:
        """Insert a launch."""
        names = ", ".join(_LAUNCH_COLUMNS)
        marks = ", ".join("?" for _ in _LAUNCH_COLUMNS)
        self._db.execute(
            f"INSERT INTO launches ({names}) VALUES ({marks})",
            [getattr(row, name) for name in _LAUNCH_COLUMNS],
        )

    def update_launch(self, identity: str, generation: int, **values: Any) -> None:
        """Change columns of one launch, named as in `LaunchRow`."""
        assert values.keys() <= set(_LAUNCH_COLUMNS)
        changes = ", ".join(f"{name} = ?" for name in values)
        self._db.execute(
            f"UPDATE launches SET {changes} WHERE identity = ? AND generation = ?",
            [*values.values(), identity, generation],
        )

    def end_launch(self, identity: str, generation: int, *, at: float, planned: bool, cause: str) -> bool:
        """Record a launch's end, once; False when its end was recorded before."""
        cursor = self._db.execute(
            "UPDATE launches SET ended_at = ?, planned = ?, end_cause = ?"
            " WHERE identity = ? AND generation = ? AND ended_at IS NULL",
            (at, planned, cause, identity, generation),
        )
        return cursor.rowcount == 1

    def launch_ended_earlier(self, identity: str, generation: int, at: float) -> None:
        """Say that a launch had ended before that was noticed."""
        self._db.execute(
            "UPDATE launches SET ended_at = ? WHERE identity = ? AND generation = ? AND ended_at > ?"
            " AND COALESCE(up_at, started_at) <= ?",
            (at, identity, generation, at, at),
        )

    def add_action(self, action: ActionRow) -> ActionRow:
        """Insert a deliberate end and return it with its id."""
        cursor = self._db.execute(
            "INSERT INTO actions (identity, generation, intent, who, why, asked_at, spec, attempts)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (
                *(action.identity, action.generation, action.intent, action.who, action.why),
                *(action.asked_at, json.dumps(action.spec)),
            ),
        )
        assert cursor.lastrowid is not None
        return replace(action, id=cursor.lastrowid)

    def change_intent(self, action: int, intent: str, who: str, why: str) -> None:
        """Let an unfinished end serve another intent (a `stop` that overtakes a `restart`)."""
        self._db.execute(
            "UPDATE actions SET intent = ?, who = ?, why = ? WHERE id = ?", (intent, who, why, action)
        )

    def change_spec(self, action: int, spec: dict[str, Any]) -> None:
        """Change what an unfinished end is told."""
        self._db.execute("UPDATE actions SET spec = ? WHERE id = ?", (json.dumps(spec), action))

    def worker_started(self, action: int, worker: ProcessId | None) -> None:
        """Record which process works on an action; None when it was there too briefly to be seen."""
        self._db.execute(
            "UPDATE actions SET attempts = attempts + 1, worker_pid = ?, worker_start = ? WHERE id = ?",
            (worker.pid if worker else None, worker.start if worker else None, action),
        )

    def finish_action(self, action: int, at: float, outcome: str) -> bool:
        """Record an action's end, once; False when it was recorded before."""
        cursor = self._db.execute(
            "UPDATE actions SET done_at = ?, outcome = ? WHERE id = ? AND done_at IS NULL",
            (at, outcome, action),
        )
        return cursor.rowcount == 1

    def add_task(self, task: TaskRow) -> TaskRow:
        """Put a task into the queue and return it with its id."""
        names = ", ".join(_TASK_COLUMNS[1:])
        marks = ", ".join("?" for _ in _TASK_COLUMNS[1:])
        cursor = self._db.execute(
            f"INSERT INTO tasks ({names}) VALUES ({marks})",
            [getattr(task, name) for name in _TASK_COLUMNS[1:]],
        )
        assert cursor.lastrowid is not None
        return replace(task, id=cursor.lastrowid)

    def update_task(self, number: int, **values: Any) -> None:
        """Change columns of one task, named as in `TaskRow`."""
        assert values.keys() <= set(_TASK_COLUMNS)
        changes = ", ".join(f"{name} = ?" for name in values)
        self._db.execute(f"UPDATE tasks SET {changes} WHERE id = ?", [*values.values(), number])

    def add_assignment(self, row: AssignmentRow) -> AssignmentRow:
        """Put an assignment at the end of the queue and return it with its number; its id must be new."""
        names, marks = ", ".join(_ASSIGNMENT_COLUMNS[1:]), ", ".join("?" for _ in _ASSIGNMENT_COLUMNS[1:])
        cursor = self._db.execute(
            f"INSERT INTO assignments ({names}) VALUES ({marks})",
            [getattr(row, name) for name in _ASSIGNMENT_COLUMNS[1:]],
        )
        assert cursor.lastrowid is not None
        return replace(row, number=cursor.lastrowid)

    def put_assignment(self, row: AssignmentRow) -> None:
        """Replace what is stored of an assignment."""
        changes = ", ".join(f"{name} = ?" for name in _ASSIGNMENT_COLUMNS[1:])
        self._db.execute(
            f"UPDATE assignments SET {changes} WHERE number = ?",
            [*(getattr(row, name) for name in _ASSIGNMENT_COLUMNS[1:]), row.number],
        )

    def forget_assignments(self, before: float) -> None:
        """Forget the assignments that were over before a time; their ids are free again."""
        self._db.execute("DELETE FROM assignments WHERE done_at < ?", (before,))

    def put_account(self, row: AccountRow) -> None:
        """Store what is known of an account, in place of what was."""
        names = ", ".join(_ACCOUNT_COLUMNS)
        changes = ", ".join(f"{name} = excluded.{name}" for name in _ACCOUNT_COLUMNS[1:])
        self._db.execute(
            f"INSERT INTO accounts ({names}) VALUES ({', '.join('?' for _ in _ACCOUNT_COLUMNS)})"
            f" ON CONFLICT (name) DO UPDATE SET {changes}",
            [getattr(row, name) for name in _ACCOUNT_COLUMNS],
        )

    def forget_account(self, name: str) -> None:
        """Forget what is known of an account."""
        self._db.execute("DELETE FROM accounts WHERE name = ?", (name,))

    def add_notice(
        self, at: float, kind: str, identity: str | None, key: str, text: str, detail: dict[str, Any]
    ) -> None:
        """Append something that somebody wants to be told of."""
        self._db.execute(
            "INSERT INTO notices (at, kind, identity, key, text, detail) VALUES (?, ?, ?, ?, ?, ?)",
            (at, kind, identity, key, text, json.dumps(detail)),
        )

    def forget_notices(self, before: float) -> None:
        """Forget the notices of before a time."""
        self._db.execute("DELETE FROM notices WHERE at < ?", (before,))

    def forget_tasks(self, before: float) -> None:
        """Forget the tasks that were delivered or cancelled before a time; they may be large."""
        self._db.execute("DELETE FROM tasks WHERE done_at < ?", (before,))

    def add_topic(self, conversation: str, topic: str, identity: str, at: float) -> None:
        """Remember that a topic was delivered in a conversation."""
        self._db.execute(
            "INSERT INTO topics (conversation, topic, identity, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (conversation, topic) DO NOTHING",
            (conversation, topic, identity, at),
        )

    def add_server_exit(self, row: ServerExitRow) -> bool:
        """Insert the end of a tmux server, once; False when it was there."""
        names = ", ".join(_SERVER_EXIT_COLUMNS)
        marks = ", ".join("?" for _ in _SERVER_EXIT_COLUMNS)
        cursor = self._db.execute(
            f"INSERT INTO server_exits ({names}) VALUES ({marks}) ON CONFLICT (boot, pid, start) DO NOTHING",
            [
                getattr(row, name) if name != "agents" else json.dumps(row.agents)
                for name in _SERVER_EXIT_COLUMNS
            ],
        )
        return cursor.rowcount == 1

    def put_plugin(self, row: PluginRow) -> None:
        """Insert or replace what a plugin last said of itself."""
        names = ", ".join(_PLUGIN_COLUMNS)
        marks = ", ".join("?" for _ in _PLUGIN_COLUMNS)
        updates = ", ".join(f"{name} = excluded.{name}" for name in _PLUGIN_COLUMNS[1:])
        self._db.execute(
            f"INSERT INTO plugins ({names}) VALUES ({marks}) ON CONFLICT (name) DO UPDATE SET {updates}",
            [getattr(row, name) for name in _PLUGIN_COLUMNS],
        )

    def purge(self, identity: str) -> dict[str, int]:
        """Delete everything of an agent, and return how many rows of each table that were."""
        deleted = {}
        for table in ("agents", "launches", "actions", "history", "tasks", "topics"):
            cursor = self._db.execute(f"DELETE FROM {table} WHERE identity = ?", (identity,))
            deleted[table] = cursor.rowcount
        return deleted

    def add_history(
        self, at: float, identity: str, generation: int | None, ev: str, detail: dict[str, Any]
    ) -> None:
        """Append one decision to an agent's history."""
        self._db.execute(
            "INSERT INTO history (at, identity, generation, ev, detail) VALUES (?, ?, ?, ?, ?)",
            (at, identity, generation, ev, json.dumps(detail)),
        )

    def add_child(self, child: ChildRow) -> None:
        """Remember a process that circusd started."""
        self._db.execute(
            "INSERT INTO children VALUES (?, ?, ?, ?, ?) ON CONFLICT (pid, start) DO NOTHING",
            (child.process.pid, child.process.start, child.boot, child.kind, child.name),
        )

    def remove_child(self, process: ProcessId) -> None:
        """Forget a process that has ended."""
        self._db.execute("DELETE FROM children WHERE pid = ? AND start = ?", (process.pid, process.start))

    def take_in(self, name: str, at: float) -> None:
        """Mark a report as taken in, in the transaction that holds its effect."""
        self._db.execute("INSERT INTO taken_in VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, at))

    def forget_reports(self, before: float) -> None:
        """Forget the names of reports taken in before a time; their files are gone since then."""
        self._db.execute("DELETE FROM taken_in WHERE at < ?", (before,))


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_reader(path: Path) -> Reader:
    """Open the store for reading; it never blocks the writer (WAL).

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2.0)
        (version,) = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if int(version) < SCHEMA_VERSION:
            connection.close()
            raise StoreError(
                f"the store {path} has schema {version}, this version reads {SCHEMA_VERSION}: "
                "start its circusd with this version (failoverctl up), which upgrades it and keeps everything"
            )
        return Reader(connection)
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise StoreError(f"the store {path} cannot be read: {error}") from error
