"""What plugins ask and report. A person needs none of these, but may use them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from circus import logger
from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.problems import describe
from circus_failover.records import PluginRow
from circus_failover.self_requests import REPORTS
from circus_failover.store import Store, StoreError
from circus_failover.verbs import work_changes
from circus_failover.verbs.answers import PLAIN_WAIT_SECS, answer, state_now
from circus_failover.verbs.selection import one_agent, supervisor_of, who
from circus_failover.words import Asked, NoticeKind, Phase

if TYPE_CHECKING:
    from circus_failover.plugin_report import Finding, Report
    from circus_failover.supervisor import Supervisor

STEADY = "alive"
"""The finding of a healthy agent, which is logged only with `log_verbose`; of no agent, it is news."""


class Ticked(Command):  # type: ignore[misc]
    """\
    Take in what a plugin did in its last tick
    ==========================================

    For plugins: when the tick was, how long it took, its errors, what it found. `doctor` judges plugins
    by it. The answer tells the state directory and whether a steady state is to be reported.
    """

    name = "ticked"

    def message(self, *args: str, **opts: Any) -> Any:
        raise ArgumentError("ticked is what plugins report; `doctor` shows it")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        verbose = held.log_verbose
        reply = {
            "state_dir": str(held.state.path) if held.state else None,
            "log_verbose": verbose,
            "config": failover_yaml(held),
        }
        if held.store is None:
            return reply
        report = _report(props)
        alert = (report.detail or {}).get("alert")
        if report.detail is not None:
            held.alerts.pop(report.name, None)
            if alert:
                held.alerts[report.name] = str(alert)
        if report.last_error:
            # Circus sends what a plugin prints to /dev/null unless circusd has a log file (0.19).
            logger.warning("circus-failover: %s: %s", report.name, report.last_error[:1000])
        for finding in report.findings:
            if held.log is not None and (finding.action != STEADY or not finding.identity or verbose):
                held.log.write(
                    time.time(),
                    "supervise",
                    identity=finding.identity,
                    action=finding.action,
                    age=None if finding.age is None else round(finding.age, 1),
                    outcome=finding.outcome,
                    evidence=finding.evidence,
                )
            if finding.notice is not None:
                _notice(held, finding)
        for told in report.told:
            if held.log is not None:
                action = told.action
                held.log.write(
                    time.time(),
                    "notify",
                    action=action,
                    target=told.target,
                    kind=told.kind,
                    count=told.count,
                    why=told.why,
                )
        try:
            self._store(held.store, report)
        except StoreError as error:
            held.store_trouble = str(error)
        return reply

    def _store(self, store: Store, report: Report) -> None:
        before = store.plugins().get(report.name)
        same = before if before is not None and before.pid == report.pid else None
        error = report.last_error[:1000] if report.last_error else None
        # None: it has not read yet what it had stored.
        kept = before.detail if before is not None else "{}"
        row = PluginRow(
            name=report.name,
            pid=report.pid,
            at=report.at,
            secs=report.secs,
            interval=report.interval,
            ticks=(same.ticks if same is not None else 0) + 1,
            errors=(same.errors if same is not None else 0) + report.errors,
            last_error=error or (same.last_error if same is not None else None),
            detail=json.dumps(report.detail) if report.detail is not None else kept,
        )
        with store.decision(durable=False):
            store.put_plugin(row)


def _notice(held: Supervisor, finding: Finding) -> None:
    """Write down what a plugin found that somebody may want to be told of."""
    try:
        kind = NoticeKind(str(finding.notice))
    except ValueError:
        logger.error("circus-failover: no notice is of kind %s", describe(finding.notice))
        return
    held.notices.say(kind, finding.evidence, identity=finding.identity or None, key=finding.key)


def failover_yaml(held: Supervisor) -> str | None:
    """Return which failover.yaml a plugin is to read; None: of no agent can it be read."""
    agents = held.roster.agents.values()
    return next((str(agent.settings.settings.path) for agent in agents if agent.settings is not None), None)


def _report(props: dict[str, Any]) -> Report:
    """Return a plugin's report, checked.

    Raises:
        MessageError: it makes no sense; the text says where.
    """
    # Late: every verb of failoverctl imports this module, and none of them checks a report.
    from pydantic import ValidationError

    from circus_failover.plugin_report import Report

    try:
        return Report.model_validate(props)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "report"
        found = "nothing" if first["type"] == "missing" else describe(first["input"])
        expected = first["msg"][:1].lower() + first["msg"][1:]
        raise MessageError(f"a plugin's report: {where}: found {found}; {expected}") from error


class HalfOpen(Command):  # type: ignore[misc]
    """\
    Let an agent's crash loop half-open, if its time has come
    =========================================================

    For the CrashLoopGuard: one launch is on trial then.

    Command line
    ------------

    ::

        $ failoverctl half-open NAME
    """

    name = "half-open"
    properties = ["name"]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("half-open takes the name of one agent")
        return self.make_message(name=args[0])

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agent = one_agent(arbiter, str(props["name"]))
        _same_launch(agent, props)
        why_not = held.crash_loops.half_open(agent)
        if why_not is not None:
            raise MessageError(why_not)
        return answer([state_now(agent)])


class Respawn(Command):  # type: ignore[misc]
    """\
    Bring an agent back that ended by itself
    ========================================

    For the CrashLoopGuard, which carries out `failover.restart`. Refused for an agent that is not `down`.

    Command line
    ------------

    ::

        $ failoverctl respawn NAME
    """

    name = "respawn"
    properties = ["name"]

    def message(self, *args: str, **opts: Any) -> Any:
        if len(args) != 1:
            raise ArgumentError("respawn takes the name of one agent")
        return self.make_message(name=args[0])

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agent = one_agent(arbiter, str(props["name"]))
        _same_launch(agent, props)
        if agent.phase is not Phase.DOWN or agent.row.stay_stopped or agent.observed:
            raise MessageError(f"{agent.identity} is {agent.phase}: only what is down is brought back")
        held.spawn(held.bring_up.start(agent, who(props), PLAIN_WAIT_SECS, Asked.POLICY))
        return answer([state_now(agent)])


def _same_launch(agent: Any, props: dict[str, Any]) -> None:
    generation = props.get("generation")
    if generation is not None and generation != agent.row.generation:
        raise MessageError(
            f"{agent.identity} has generation {agent.row.generation} now, not {generation}: look again"
        )


class SelfRequest(Command):  # type: ignore[misc]
    """\
    Carry out what an agent asks about itself
    =========================================

    Sent by `failoverctl self`, from inside an agent.
    """

    name = "self-request"

    def message(self, *args: str, **opts: Any) -> Any:
        raise ArgumentError("an agent asks with `failoverctl self`")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agent = one_agent(arbiter, str(props.get("identity")))
        what, generation, launch = (props.get(name) for name in ("what", "generation", "launch"))
        if not isinstance(generation, int) or not isinstance(launch, str) or not isinstance(what, str):
            raise MessageError(
                f"self-request: found {describe([what, generation, launch])}, expected the request, the "
                "generation and the launch of the agent that makes it"
            )
        if what in REPORTS:
            return work_changes.report(held, agent, what, generation, launch, props)
        try:
            why_not = held.requests.carry_out(agent, what, generation, launch)
        except StoreError as error:
            raise MessageError(f"nothing was ended, since the intent could not be stored: {error}") from error
        if why_not is not None:
            raise MessageError(f"{agent.identity}: {why_not}")
        return answer([state_now(agent)])
