"""What the AccountFailover plugin asks: what is to be done about agents' limits, and that it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.problems import describe
from circus_failover.store import StoreError
from circus_failover.verbs.answers import answer, state_now
from circus_failover.verbs.selection import names_given, one_agent, supervisor_of, who

if TYPE_CHECKING:
    from circus_failover.policy.failover import LimitVerdict

LOOKED_AT = 50
"""How many agents may be asked about at once: to look at so many takes circusd's only loop some 60 ms."""


class OnLimit(Command):  # type: ignore[misc]
    """\
    What is to be done about agents whose account is exhausted, and doing it
    ========================================================================

    For the AccountFailover plugin. Without an action the answer says for each agent what would be done now,
    and why: `switch`, `hold`, `park`, `wake`, `tell` or `leave`. With one, circusd looks again, and refuses
    where anything else is to be done by now. `explain` says the same for people.

    Command line
    ------------

    ::

        $ failoverctl on-limit NAME
    """

    name = "on-limit"
    properties = ["names"]

    def message(self, *args: str, **opts: Any) -> Any:
        if not args:
            raise ArgumentError("on-limit takes the names of agents")
        return self.make_message(names=list(args))

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        if props.get("action") is not None:
            return self._carry_out(arbiter, props)
        from circus_failover import limit_verdicts, limits

        held, names = supervisor_of(arbiter), names_given(props)
        if len(names) > LOOKED_AT:
            raise MessageError(f"names: found {len(names)}, expected at most {LOOKED_AT}")
        seen, verdicts = limits.census(held), []
        for name in names:
            agent = held.roster.agents.get(name)
            if agent is None and len(names) > 1:
                continue  # of many that a plugin has read of, one was removed since
            agent = agent or one_agent(arbiter, name)
            verdict = limit_verdicts.verdict(held, agent, seen, look=False)
            verdicts.append(_shown(name, agent.row.generation, verdict))
        return {"verdicts": verdicts}

    def _carry_out(self, arbiter: Any, props: dict[str, Any]) -> dict[str, Any]:
        from circus_failover import limit_verdicts
        from circus_failover.policy.failover import LimitAction

        wanted, names = props["action"], names_given(props)
        if wanted not in [str(action) for action in LimitAction if action is not LimitAction.LEAVE]:
            raise MessageError(f"action: found {describe(wanted)}, expected one that is done")
        if len(names) != 1:
            raise MessageError(f"names: found {describe(names)}, expected one for {wanted}")
        held, agent = supervisor_of(arbiter), one_agent(arbiter, names[0])
        generation = props.get("generation")
        if generation is not None and generation != agent.row.generation:
            raise MessageError(
                f"{agent.identity} has generation {agent.row.generation} now, not {generation}: look again"
            )
        held.check(agent)
        held.roster.read_settings(agent)
        verdict = limit_verdicts.verdict(held, agent)
        if str(verdict.action) != wanted:
            raise MessageError(f"{agent.identity}: {wanted} is not to be done any more: {verdict.reason}")
        try:
            limit_verdicts.carry_out(held, agent, verdict, who(props))
        except StoreError as error:
            reason = f"{agent.identity} was left as it is, since the intent could not be stored: {error}"
            raise MessageError(reason) from error
        return {**answer([state_now(agent)]), **_shown(agent.identity, agent.row.generation, verdict)}

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        return "\n".join(
            f"{one['identity']}: {one['action']}{' to ' + one['to'] if one['to'] else ''}: {one['reason']}"
            for one in msg.get("verdicts", [])
        )


def _shown(name: str, generation: int, verdict: LimitVerdict) -> dict[str, Any]:
    return {
        "identity": name,
        "generation": generation,
        "action": str(verdict.action),
        "to": verdict.to,
        "until": verdict.until,
        "reason": verdict.reason,
    }
