"""What the plugin that looks at agents tells circusd. A person needs none of this."""

from __future__ import annotations

from typing import Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.plugin_input import LONGEST_INTERVAL_SECS
from circus_failover.problems import describe
from circus_failover.verbs.selection import supervisor_of

MOST_LOOKS = 10_000


class Seen(Command):  # type: ignore[misc]
    """\
    Take in what agents were seen to do
    ===================================

    For the AgentStates plugin: a list of looks, each about one launch and one process. A look at another
    launch than the recorded one changes nothing; one that makes no sense is an error, and nothing is taken.
    The answer names the agents of whom it has to say again what they do.
    """

    name = "seen"

    def message(self, *args: str, **opts: Any) -> Any:
        raise ArgumentError("seen is what the AgentStates plugin tells; `fleet` and `explain` show it")

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        from circus_failover import agent_health, state_intake

        interval: Any = props.get("interval")
        said = props.get("agents")
        if type(interval) not in (int, float) or not 0 < interval <= LONGEST_INTERVAL_SECS:
            raise MessageError(f"seen: interval: found {describe(interval)}, expected seconds")
        if not isinstance(said, list) or len(said) > MOST_LOOKS:
            raise MessageError(f"seen: agents: found {describe(said)}, expected at most {MOST_LOOKS} looks")
        looks = []
        for index, one in enumerate(said):
            look = agent_health.heard(one)
            if look is None:
                raise MessageError(
                    f"seen: agents[{index}]: found {describe(one)}, expected a look with identity, "
                    "generation, pid, pid_start, at, health, conversation and last_activity; "
                    "nothing was taken"
                )
            looks.append(look)
        return {"again": state_intake.take_in(supervisor_of(arbiter), looks, float(interval))}
