"""The verbs that change assignments: `release`, `reassign`, `cancel`; and what agents report of theirs.

What may be done with an assignment is decided by `assignments`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.store import StoreError
from circus_failover.verbs.selection import supervisor_of, who
from circus_failover.verbs.work_messages import (
    checked_ids,
    ids_given,
    line,
    message_of,
    shown,
    unknown,
    whom,
    whom_given,
)
from circus_failover.words import AssignmentState

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.records import AssignmentRow
    from circus_failover.supervisor import Supervisor

AT_IT = frozenset((str(AssignmentState.DELIVERED), str(AssignmentState.WORKING)))


class Release(Command):  # type: ignore[misc]
    """\
    Take assignments from their owners
    ==================================

    Each goes back to its pool, for another agent; one that was given to an agent by name waits for a person:
    `reassign` or `cancel`. No process is ended: the answer says where one may go on with it.

    Command line
    ------------

    ::

        $ failoverctl release ID...
    """

    name = "release"

    def message(self, *args: str, **opts: Any) -> Any:
        return message_of(self, args)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        return _each(held, ids_given(props), lambda name: held.assignments.release(name, who(props)))

    def console_msg(self, msg: dict[str, Any]) -> str:
        return _changes(self, msg)


class Reassign(Command):  # type: ignore[misc]
    """\
    Give an assignment to another agent or pool
    ===========================================

    Whoever has it, has it no more; the launches that died with it are forgiven. No process is ended: the
    answer says where one may go on with it.

    Command line
    ------------

    ::

        $ failoverctl reassign ID NAME
        $ failoverctl reassign ID --pool P

    Options
    +++++++

    - <ID>: the assignment
    - <NAME>: the agent that gets it
    - <pool>: the pool that gets it
    """

    name = "reassign"
    options = [("", "pool", None, "the pool that gets it")]

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError(
                "reassign takes the id of an assignment, and the agent or --pool that gets it"
            )
        checked_ids(args[:1])
        whom = whom_given("reassign ID", args[1:], opts.get("pool"))
        return self.make_message(ids=list(args[:1]), **whom)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        agent, pool = whom(arbiter, props)
        by = who(props)
        return _each(
            held,
            ids_given(props),
            lambda name: held.assignments.reassign(name, agent=agent, pool=pool, who=by),
        )

    def console_msg(self, msg: dict[str, Any]) -> str:
        return _changes(self, msg)


class Cancel(Command):  # type: ignore[misc]
    """\
    Cancel assignments
    ==================

    Nobody is told them any more. No process is ended: the answer says where one may go on with it.

    Command line
    ------------

    ::

        $ failoverctl cancel ID...
    """

    name = "cancel"

    def message(self, *args: str, **opts: Any) -> Any:
        return message_of(self, args)

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held = supervisor_of(arbiter)
        return _each(held, ids_given(props), lambda name: held.assignments.cancel(name, who(props)))

    def console_msg(self, msg: dict[str, Any]) -> str:
        return _changes(self, msg)


def report(
    held: Supervisor, agent: Agent, what: str, generation: int, launch: str, said: dict[str, Any]
) -> dict[str, Any]:
    """Take in what an agent reports of its assignment, and return what it is told.

    Args:
        held: the supervisor.
        agent: who reports.
        what: `done` or `failed`.
        generation: the launch that reports.
        launch: that launch's own name.
        said: the rest of the report (`self_requests`).

    Raises:
        MessageError: it is refused.
    """
    try:
        reported = held.requests.report(agent, what, generation, launch, said)
    except ValueError as error:
        raise MessageError(f"{agent.identity}: {error}") from error
    except StoreError as error:
        raise MessageError(f"{agent.identity}: {what} could not be stored: {error}") from error
    if reported.why_not is not None or reported.row is None:
        raise MessageError(f"{agent.identity}: {reported.why_not}")
    return {"assignment": shown(held, [reported.row])[0], "already": reported.already}


def _changes(command: Command, msg: dict[str, Any]) -> str:
    if msg.get("status") != "ok":
        return str(command.console_error(msg))
    return "\n".join(
        text
        for item in msg["assignments"]
        for text in (line(item), *((item["advice"],) if item["advice"] else ()))
    )


# -- what is done ------------------------------------------------------------------------------------


def _each(held: Supervisor, names: list[str], change: Callable[[str], AssignmentRow]) -> dict[str, Any]:
    """Change assignments one by one; one that is refused keeps no other one back."""
    from circus_failover.assignments import NotPossible

    changed: list[AssignmentRow] = []
    advice: dict[str, str | None] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            before = held.assignments.get(name)
            if before is None:
                raise NotPossible(unknown(held, name))
            changed.append(change(name))
        except NotPossible as error:
            text = str(error)
            refused[name] = text if name in text else f"{name}: {text}"
        except StoreError as error:
            refused[name] = f"{name}: nothing was changed: {error}"
        else:
            advice[name] = _advice(held, before)
    done = [{**item, "advice": advice[item["id"]]} for item in shown(held, changed)]
    answer: dict[str, Any] = {"assignments": done, "refused": refused}
    if refused:
        reason = "; ".join(refused.values())
        if done:
            reason += "; but changed was " + "; ".join(line(item) for item in done)
        answer.update(status="error", reason=reason, errno=5)
    return answer


def _advice(held: Supervisor, before: AssignmentRow) -> str | None:
    """Return what to do about the process of an old owner that was told it; None: there is none."""
    agent = held.roster.agents.get(before.owner or "")
    if agent is None or agent.row.pid is None or agent.row.generation != before.generation:
        return None
    if before.state not in AT_IT:
        return None
    name = agent.identity
    return (
        f"{name} was told {before.id}, and its process may go on with it: "
        f"`fresh {name}` begins it anew, `park {name}` ends it"
    )
