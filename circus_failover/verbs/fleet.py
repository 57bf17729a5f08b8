"""The verbs that show agents: `fleet`, `explain`, `history`. They change nothing."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover import __version__
from circus_failover.problems import describe
from circus_failover.records import ActionRow, LaunchRow
from circus_failover.store import StoreError
from circus_failover.verbs.plugin_verbs import failover_yaml
from circus_failover.verbs.selection import one_agent, supervisor_of

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor


class Fleet(Command):  # type: ignore[misc]
    """\
    Show every agent
    ================

    One row an agent: phase, state, account, generation, for how long, last activity, why its last launch
    ended, its assignment where some have one, how many tasks wait where some do, and the reason where there
    is something to say. Agents that were never started are `down`.

    Command line
    ------------

    ::

        $ failoverctl fleet [NAME ...]
        $ failoverctl --json fleet

    Options
    +++++++

    - <NAME>: only these agents
    """

    name = "fleet"

    def message(self, *args: str, **opts: Any) -> Any:
        return self.make_message(names=list(args)) if args else self.make_message()

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        wanted = props.get("names")
        chosen = (
            [one_agent(arbiter, name) for name in wanted] if wanted else list(held.roster.agents.values())
        )
        logs = [log for log in (held.log, held.exits) if log is not None]
        return {
            "agents": [held.view(agent) for agent in sorted(chosen, key=lambda agent: agent.identity)],
            "circusd": {
                "pid": os.getpid(),
                "version": __version__,
                "state_dir": str(held.state.path) if held.state else None,
                "ini": str(getattr(arbiter, "config_file", None)),
                "config": failover_yaml(held),
                "trouble": held.trouble,
                "log_lines_lost": sum(log.failed for log in logs) if logs else None,
                "log_trouble": next((log.last_error for log in logs if log.last_error), None),
                "last_tick": held.last_tick,
            },
        }

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        from circus_failover import screen

        tasks = any(agent.get("tasks") for agent in msg["agents"])
        work = any(agent.get("assignment") for agent in msg["agents"])
        rows = [
            (
                agent["identity"],
                screen.phase(agent["phase"]),
                screen.state(agent, width=screen.STATE_WIDTH),
                agent["account"] or "-",
                agent["generation"] or "-",
                screen.ago(agent["since"] or None),
                screen.ago(agent["last_activity"]),
                agent.get("last_cause") or "-",
                *((screen.assignment(agent, screen.ASSIGNMENT_WIDTH),) if work else ()),
                *((agent["tasks"] or "-",) if tasks else ()),
                agent["reason"] or "",
            )
            for agent in msg["agents"]
        ]
        columns = ["AGENT", "PHASE", "STATE", "ACCOUNT", "GEN", "FOR", "ACTIVE", "LAST END", "REASON"]
        columns[-1:-1] = [*(["WORK"] if work else []), *(["TASKS"] if tasks else [])]
        text = (
            screen.table(columns, rows)
            if rows
            else "no agents: no section of circus.ini names the enrol hook"
        )
        return "\n\n".join([text, *(f"trouble: {screen.plain(one)}" for one in _troubles(msg))])


class Explain(Command):  # type: ignore[misc]
    """\
    Say why an agent is as it is
    ============================

    Its phase with cause and reason, its launch and how the one before ended, the last output of a failed
    launch, what the gate says now, intents that are under way, its assignment, assignments and tasks that
    wait; and what would happen next: what `start` and `wake` would do, what the idle reaper, the crash-loop
    guard, Heartbeat and AccountFailover would do in their next tick, and by what evidence; of its account
    what is known, and why it would go on on which other one.

    Command line
    ------------

    ::

        $ failoverctl explain NAME
    """

    name = "explain"
    properties = ["name"]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("explain takes the name of one agent")
        return self.make_message(name=args[0])

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        agent = one_agent(arbiter, str(props["name"]))
        try:
            return self._explained(arbiter, supervisor_of(arbiter), agent)
        except StoreError as error:
            raise MessageError(f"{agent.identity} cannot be explained: {error}") from error

    def _explained(self, arbiter: Any, held: Supervisor, agent: Agent) -> dict[str, Any]:
        from circus_failover.verbs import explanation

        ahead = explanation.outlook(arbiter, held, agent)
        settings = agent.settings
        launches = held.store.launches(agent.identity, 2) if held.store else []
        actions = held.store.actions(agent.identity, 1) if held.store else []
        server_exit = held.watches.exit_of(agent)
        return {
            "agent": held.view(agent),
            "settings": {
                "command": list(settings.command),
                "working_dir": str(settings.working_dir),
                "config": str(settings.settings.path),
                "stop_secs": settings.stop_secs,
                "autostart": settings.autostart,
            }
            if settings
            else None,
            "problems": agent.problems,
            "gate": agent.divergence or "ok",
            "stays_stopped": agent.row.stay_stopped,
            "launches": [_launch(launch) for launch in launches],
            "server_exit": asdict(server_exit) if server_exit is not None else None,
            "intent": _action(actions[0]) if actions else None,
            "pane_log": str(held.state.pane_log(agent.identity)) if held.state else None,
            **ahead,
        }

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        from circus_failover import screen
        from circus_failover.verbs import explained_account, explained_work, explanation

        agent = msg["agent"]
        lines = [f"{agent['identity']} is {agent['phase']} ({agent['cause'] or 'never started'})"]
        facts: list[tuple[str, object]] = [
            ("reason", agent["reason"]),
            ("since", f"{screen.local_time(agent['since'] or None)} ({screen.ago(agent['since'] or None)})"),
            ("state", screen.state(agent).plain if agent["state"] else None),
            ("generation", agent["generation"] or "never launched"),
            ("pid", agent["pid"]),
            ("session", f"{agent['session']} on {agent['socket']}" if agent["socket"] else None),
            *explained_account.facts(msg["account"], agent["account"]),
            ("gate", msg["gate"]),
            ("settings", msg["problems"]),
            *explanation.facts(msg),
            ("pane log", msg["pane_log"]),
        ]
        intent = msg["intent"]
        if intent is not None and intent["intent"] != "clear":
            when = screen.ago(intent["asked_at"])
            done = intent["outcome"] or "under way"
            facts.append(("last intent", f"{intent['intent']} by {intent['who']}, {when} ago: {done}"))
        lines.extend(f"  {name:12} {screen.plain(value)}" for name, value in facts if value)
        for line in explained_work.lines(msg):
            lines.append("  " + screen.plain(line))
        for launch in msg["launches"]:
            lines.append("  " + screen.plain(explanation.launch_line(launch)))
            if launch["last_output"] and launch["ended_at"]:
                tail = [line for line in launch["last_output"].splitlines() if line.strip()][-10:]
                lines.extend("    | " + screen.plain(line) for line in tail)
        return "\n".join(lines)


class History(Command):  # type: ignore[misc]
    """\
    Show what happened to an agent
    ==============================

    Every decision about it, the newest last: launches, adoptions, refusals, intents, ends. Also of an agent
    that was removed, or that no section names any more, until `purge` deletes it.

    Command line
    ------------

    ::

        $ failoverctl history NAME [--limit N]

    Options
    +++++++

    - <limit>: at most so many decisions (50)
    """

    name = "history"
    properties = ["name"]
    options = [("", "limit", "50", "at most so many decisions")]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("history takes the name of one agent")
        limit = str(opts.get("limit", "50"))
        if not limit.isdigit() or not 0 < int(limit) <= 10000:
            raise ArgumentError(f"--limit {limit!r}: a number from 1 to 10000")
        return self.make_message(name=args[0], limit=int(limit))

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held, name, limit = supervisor_of(arbiter), str(props["name"]), int(props.get("limit", 50))
        try:
            store = held.known()
            if store.agent(name) is None:
                # What the store knows may be an agent that was removed, or that no section names any more.
                name = one_agent(arbiter, name).identity
            return {
                "identity": name,
                "history": store.history(name, limit),
                "launches": [_launch(launch) for launch in store.launches(name, limit)],
            }
        except StoreError as error:
            raise MessageError(f"the history of {describe(name)} cannot be shown: {error}") from error

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        from circus_failover import screen

        hidden = {"at", "generation", "ev", "phase"}
        rows = [
            (
                screen.local_time(entry["at"]),
                entry["generation"] or "-",
                entry["ev"],
                screen.phase(entry.get("phase", "")),
                " ".join(
                    f"{key}={value}"
                    for key, value in entry.items()
                    if key not in hidden and value is not None
                ),
            )
            for entry in reversed(msg["history"])
        ]
        if not rows:
            return f"{msg['identity']}: nothing happened yet"
        return screen.table(("WHEN", "GEN", "EVENT", "PHASE", "DETAILS"), rows)


def _troubles(msg: dict[str, Any]) -> list[str]:
    """Return what is wrong with circusd's own records, for a person."""
    circusd = msg.get("circusd", {})
    found = [str(circusd["trouble"])] if circusd.get("trouble") else []
    if circusd.get("log_lines_lost"):
        why = circusd.get("log_trouble")
        lost = f"{circusd['log_lines_lost']} lines of lifecycle.log or exits.log could not be written"
        found.append(f"{lost}: {why}" if why else lost)
    return found


def _launch(launch: LaunchRow) -> dict[str, Any]:
    return dict(vars(launch))


def _action(action: ActionRow) -> dict[str, Any]:
    return {
        "intent": action.intent,
        "who": action.who,
        "why": action.why,
        "generation": action.generation,
        "asked_at": action.asked_at,
        "done_at": action.done_at,
        "outcome": action.outcome,
        "attempts": action.attempts,
    }
