"""Launching: the record, the launch file, and the keeper's plan, in that order, inside a hook."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import crashpoint, keeper, launch_file, private_file
from circus_failover.agent import Agent, Starting
from circus_failover.agent_settings import AgentSettings
from circus_failover.agents import RUNTIMES
from circus_failover.policy.bringup import Verdict
from circus_failover.records import LaunchRow
from circus_failover.store import Store, StoreError
from circus_failover.waking import WakePlan
from circus_failover.words import Cause, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


class NotLaunched(Exception):
    """A launch could not be recorded or prepared, so nothing was begun."""


class Launching:
    """Launches agents for one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def row(
        self,
        agent: Agent,
        generation: int,
        cause: Cause | None,
        who: str,
        plan: WakePlan | None = None,
    ) -> LaunchRow:
        """Return the record of a launch that begins now; `plan` is None when somebody else began it."""
        account = agent.settings.account if agent.settings else None
        return LaunchRow(
            identity=agent.identity,
            generation=generation,
            cause=str(cause),
            asked_by=who,
            account=account.name if account else None,
            conversation=plan.conversation if plan else None,
            started_at=time.time(),
            mode=str(plan.mode) if plan else None,
            wake_cause=str(plan.cause) if plan else None,
            parked_by=plan.parked_by if plan else None,
            topic=plan.topic if plan else None,
        )

    def launch(self, agent: Agent, verdict: Verdict, who: str, plan: WakePlan) -> None:
        """Record a launch and prepare it: after this, Circus spawns the keeper that creates the session.

        How it begins, and why, is stored and logged before anything of it exists.

        Raises:
            NotLaunched: it could not be recorded or written; nothing was begun.
        """
        settings, state = agent.settings, self._supervisor.state
        assert settings is not None and state is not None
        generation, name = agent.row.generation + 1, str(uuid.uuid4())
        launch = self.row(agent, generation, verdict.cause, who, plan)
        stem = f"{time.time_ns():020d}-launch-{agent.identity}-{generation}"
        try:
            text = launch_file.render(
                identity=agent.identity,
                generation=generation,
                environment=self._agent_environment(agent, settings, generation, plan.conversation, name),
                working_dir=settings.working_dir,
                command=plan.command,
                prepare=settings.prepare,
                prepare_secs=settings.prepare_secs,
                spool=state.spool,
                report_stem=stem,
            )
            private_file.write(state.launch_file(agent.identity, generation), text)
            failure = state.launch_error(agent.identity, generation)
            failure.unlink(missing_ok=True)
            self._supervisor.record(
                agent,
                "wake",
                {
                    **self._supervisor.waking.fields(agent, plan.mode, plan.cause, None, plan.conversation),
                    "parked_by": plan.parked_by,
                    "topic": plan.topic,
                },
                must=True,
                writes=adding(launch, over=agent.row.generation),
                phase=Phase.STARTING,
                cause=verdict.cause,
                reason=None,
                stay_stopped=False,
                generation=generation,
                launch=name,
                conversation=plan.conversation,
                account=launch.account,
                # A circusd that dies before this launch is there does it again, and as it was asked for.
                pending=plan.asked,
                ready_at=None,
                ready_ticks=None,
                **self._supervisor.crash_loops.launching(agent),
                runtime=settings.runtime,
                home=_text(RUNTIMES[settings.runtime].home(settings, os.environ)),
                working_dir=str(settings.working_dir),
                launched_at=launch.started_at,
                health=None,
                pushed=None,
                socket=str(settings.socket),
                session=settings.session,
                own_server=settings.own_server,
                boot=self._supervisor.boot,
                pane=None,
                pid=None,
                pid_start=None,
                server_pid=None,
                server_start=None,
            )
        except (OSError, StoreError) as error:
            raise NotLaunched(str(error)) from error
        self._supervisor.record(
            agent,
            "launch",
            {
                "cause": verdict.cause,
                "who": who,
                "account": launch.account,
                "conversation": plan.conversation,
            },
        )
        crashpoint.reached("launch-recorded")
        self._gate_log(agent)
        agent.starting = Starting(time.time(), failure)
        agent.plan = keeper.plan(self._supervisor, agent, launch=True)
        self._supervisor.proving.soon()

    def _gate_log(self, agent: Agent) -> None:
        if self._supervisor.log is not None:
            self._supervisor.log.write(
                time.time(), "gate", action="ok", identity=agent.identity, accounts=agent.judged_accounts
            )

    def _agent_environment(
        self, agent: Agent, settings: AgentSettings, generation: int, conversation: str, name: str
    ) -> dict[str, str]:
        from circus_failover.roster import own_environment

        ours = {
            "FAILOVER_IDENTITY": agent.identity,
            "FAILOVER_GENERATION": str(generation),
            "FAILOVER_LAUNCH": name,
            "FAILOVER_CONVERSATION": conversation,
            "FAILOVER_STATE_DIR": str(settings.settings.state_dir),
        }
        runtime = RUNTIMES[settings.runtime]
        home = runtime.home(settings, os.environ)
        if home is not None:
            ours.update(runtime.environment(home, os.environ))
        return launch_file.agent_environment(os.environ, own_environment(agent.watcher), ours)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def adding(launch: LaunchRow, over: int) -> Callable[[Store], None]:
    """Return the write that stores a launch's record.

    Args:
        launch: the new launch.
        over: the generation before it; its record is closed, if nobody saw it end.
    """

    def write(store: Store) -> None:
        store.end_launch(
            launch.identity, over, at=launch.started_at, planned=False, cause=str(Cause.INTERRUPTED_START)
        )
        store.add_launch(launch)

    return write
