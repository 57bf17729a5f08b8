"""What plugins ask and report. A person needs none of these, but may use them."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from circus import logger
from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.records import PluginRow
from circus_failover.store import StoreError
from circus_failover.verbs.answers import PLAIN_WAIT_SECS, answer, state_now
from circus_failover.verbs.selection import one_agent, supervisor_of, who
from circus_failover.words import Asked, Phase

STEADY = "alive"
"""The finding of a healthy agent, which is logged only with `log_verbose`."""


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
        reply = {"state_dir": str(held.state.path) if held.state else None, "log_verbose": verbose}
        if held.store is None:
            return reply
        try:
            name = str(props["name"])[:100]
            if not all(math.isfinite(float(props[key])) for key in ("at", "secs", "interval")):
                raise ValueError("at, secs and interval are finite numbers")
            if not 0 < int(props["pid"]) < 2**31 or not 0 <= int(props.get("errors", 0)) < 2**31:
                raise ValueError("pid and errors are numbers of 31 bits")
            before = held.store.plugins().get(name)
            errors, error = int(props.get("errors", 0)), props.get("last_error")
            again, detail = before is not None and before.pid == int(props["pid"]), props.get("detail")
            row = PluginRow(
                name=name,
                pid=int(props["pid"]),
                at=float(props["at"]),
                secs=float(props["secs"]),
                interval=float(props["interval"]),
                ticks=(before.ticks if before and again else 0) + 1,
                errors=(before.errors if before and again else 0) + errors,
                last_error=str(error)[:1000] if error else (before.last_error if before and again else None),
                # None: it has not read yet what it had stored.
                detail=json.dumps(detail) if detail is not None else before.detail if before else "{}",
            )
            if detail is not None:
                held.alerts.pop(name, None)
                if detail.get("alert"):
                    held.alerts[name] = str(detail["alert"])
            with held.store.decision(durable=False):
                held.store.put_plugin(row)
            if error:
                # Circus sends what a plugin prints to /dev/null unless circusd has a log file (0.19).
                logger.warning("circus-failover: %s: %s", name, str(error)[:1000])
            for finding in props.get("findings") or ():
                self._log(held, finding, verbose)
        except StoreError as error:
            held.store_trouble = str(error)
        except KeyError as error:
            raise MessageError(f"a plugin's report without {error.args[0]!r}") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise MessageError(f"a plugin's report that makes no sense: {error}") from error
        return reply

    def _log(self, held: Any, finding: dict[str, Any], verbose: bool) -> None:
        if held.log is None or (finding.get("action") == STEADY and not verbose):
            return
        age = finding.get("age")
        held.log.write(
            time.time(),
            "supervise",
            identity=finding.get("identity"),
            action=finding.get("action"),
            age=None if age is None else round(float(age), 1),
            outcome=finding.get("outcome"),
            evidence=finding.get("evidence"),
        )


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
        try:
            generation, launch = int(props.get("generation", 0)), str(props.get("launch"))
            why_not = held.requests.carry_out(agent, str(props.get("what")), generation, launch)
        except (ValueError, TypeError) as error:
            raise MessageError(f"a request that makes no sense: {error}") from error
        except StoreError as error:
            raise MessageError(f"nothing was ended, since the intent could not be stored: {error}") from error
        if why_not is not None:
            raise MessageError(f"{agent.identity}: {why_not}")
        return answer([state_now(agent)])
