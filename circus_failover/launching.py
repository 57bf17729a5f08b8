"""Launching: the record, the launch file, and the keeper's plan, in that order, inside a hook."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import agent_variables, crashpoint, heartbeats, keeper, launch_file, private_file
from circus_failover.agent import Agent, Starting
from circus_failover.agents import RUNTIMES
from circus_failover.env_file import EnvFileError
from circus_failover.policy.bringup import Verdict
from circus_failover.records import LaunchRow
from circus_failover.store import Store, StoreError
from circus_failover.waking import WakePlan
from circus_failover.words import Cause, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


class NotLaunched(Exception):
    """A launch could not be recorded or prepared, so nothing was begun."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


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
        own = agent_variables.of_watcher(agent.watcher)
        file = state.launch_file(agent.identity, generation)
        try:
            going = self._supervisor.continuing.at_launch(agent, plan)
            # One that no pane has read, since the launch before was interrupted.
            self.forget(agent)
            text = launch_file.render(
                identity=agent.identity,
                generation=generation,
                environment=self._agent_environment(agent, own, generation, plan.conversation, name),
                working_dir=settings.working_dir,
                command=plan.command,
                prepare=settings.prepare,
                prepare_secs=settings.prepare_secs,
                spool=state.spool,
                report_stem=stem,
            )
            private_file.write(file, text)
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
                writes=_both(adding(launch, over=agent.row.generation), going),
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
                interrupted=None,
                limited_until=None,
                ready_at=None,
                ready_ticks=None,
                **self._supervisor.crash_loops.launching(agent),
                runtime=settings.runtime,
                home=_text(RUNTIMES[settings.runtime].home(settings, own)),
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
        except (OSError, StoreError, EnvFileError) as error:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            cause = Cause.ACCOUNT if isinstance(error, EnvFileError) else Cause.STATE_DIR
            reason = str(error)
            if isinstance(error, OSError):
                where = f"{error.filename}: {error.strerror}"
                reason = f"the launch cannot be written: {where}; mend that and wake it"
            raise NotLaunched(cause, reason) from error
        if going is not None:
            self._supervisor.deliveries.reload(agent)
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
        self._supervisor.switches.launched(agent)
        crashpoint.reached("launch-recorded")
        self._supervisor.accounts.used(launch.account)
        self._gate_log(agent)
        agent.starting = Starting(time.time(), failure)
        agent.plan = keeper.plan(self._supervisor, agent, launch=True)
        self._supervisor.proving.soon()

    def _gate_log(self, agent: Agent) -> None:
        if self._supervisor.log is not None:
            self._supervisor.log.write(
                time.time(), "gate", action="ok", identity=agent.identity, accounts=agent.judged_accounts
            )

    def forget(self, agent: Agent) -> None:
        """Remove the script of an agent's last launch, if no pane has read it: it may hold secrets.

        Raises:
            OSError: it cannot be removed.
        """
        if self._supervisor.state is not None:
            self._supervisor.state.launch_file(agent.identity, agent.row.generation).unlink(missing_ok=True)

    def _agent_environment(
        self, agent: Agent, own: Mapping[str, str], generation: int, conversation: str | None, name: str
    ) -> dict[str, str]:
        """Return all that an agent gets.

        Raises:
            EnvFileError: its account's `env_file` cannot be used, which it could a moment ago.
        """
        settings = agent.settings
        assert settings is not None
        account = {} if settings.account is None else agent_variables.of_account(settings.account)
        ours = {
            "FAILOVER_IDENTITY": agent.identity,
            "FAILOVER_GENERATION": str(generation),
            "FAILOVER_LAUNCH": name,
            "FAILOVER_STATE_DIR": str(settings.settings.state_dir),
        }
        if conversation is not None:
            ours["FAILOVER_CONVERSATION"] = conversation
        if settings.heartbeat is not None:
            ours[heartbeats.VARIABLE] = str(settings.heartbeat)
        return launch_file.agent_environment({}, agent_variables.complete(settings, own, account), ours)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _both(
    first: Callable[[Store], None], then: Callable[[Store], Mapping[str, object]] | None
) -> Callable[[Store], Mapping[str, object] | None]:
    """Return what writes both, and what the second one tells of it."""

    def write(store: Store) -> Mapping[str, object] | None:
        first(store)
        return then(store) if then is not None else None

    return write


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
