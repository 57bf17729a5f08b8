"""Tasks: a durable queue for each agent, and the worker that types the next one when the agent is ready.

A task is stored before anything else happens, and leaves the queue only when the worker saw the agent take
it. One worker types at a time, and never beside a worker that ends the agent: both hold the agent's lock.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, delivery_checks, private_file, process_table
from circus_failover.agent import Agent
from circus_failover.delivery_checks import is_assignment
from circus_failover.process_table import ProcessId
from circus_failover.records import TaskRow
from circus_failover.store import Store, StoreError
from circus_failover.words import Phase, State, TaskKind, TaskState
from circus_failover.workforce import start_worker, whereabouts

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

RETRY_SECS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Between two tries to type one task, by how many there were."""
TYPING_SECS = 60.0
TYPISTS = 16
"""How many workers type at once; the rest wait for a tick."""


class Deliveries:
    """The tasks of one supervisor's agents."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._waiting: dict[str, list[TaskRow]] = {}
        self._tried: dict[int, float] = {}
        self._workers: set[ProcessId] = set()

    # -- the queue ---------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the queue from the store, when circusd takes it over."""
        self._waiting = {}
        if self._supervisor.store is not None:
            for task in self._supervisor.store.tasks(limit=1_000_000):
                self._waiting.setdefault(task.identity, []).append(task)

    def queue(
        self,
        agent: Agent,
        text: str,
        topic: str | None,
        who: str,
        *,
        kind: TaskKind = TaskKind.TASK,
        assignment: str | None = None,
        expires_at: float | None = None,
        generation: int | None = None,
    ) -> TaskRow:
        """Store a task at the end of an agent's queue, and have it typed when its turn comes.

        Args:
            agent: whom it is for.
            text: what is typed.
            topic: its topic.
            who: who gives it.
            kind: what it is for.
            assignment: the id of the assignment that a nudge is about; the text of one is queued by
                `assignments`, in the decision that gives it an owner.
            expires_at: epoch seconds after which it is not typed any more; None: it waits for as long as
                it takes.
            generation: the only launch that it may be typed into; None: whichever comes.

        Raises:
            StoreError: it could not be stored, so it is not queued.
        """
        task = TaskRow(
            *(0, agent.identity, text, topic, who, time.time()),
            kind=str(kind),
            assignment=assignment,
            expires_at=expires_at,
            generation=generation,
        )
        stored: list[TaskRow] = []

        def writes(store: Store) -> dict[str, Any]:
            stored.append(store.add_task(task))
            return {"task": stored[0].id}

        self._supervisor.record(
            agent,
            "task",
            {
                "action": "queued",
                "who": who,
                "characters": len(text),
                "topic": topic,
                **_kinds(task),
            },
            durable=True,
            must=True,
            writes=writes,
        )
        self._waiting.setdefault(agent.identity, []).append(stored[0])
        self.work(agent)
        return stored[0]

    def begin_afresh(self, agent: Agent, store: Store, who: str) -> None:
        """Within a decision: `failover.initial_prompt` is what it is told first; it replaces an older one."""
        text = agent.settings.initial_prompt if agent.settings is not None else None
        now = time.time()
        for old in self._waiting.get(agent.identity, ()):
            if old.kind == str(TaskKind.CONTINUE):
                note = "a new conversation begins"
                store.update_task(old.id, state=str(TaskState.CANCELLED), done_at=now, note=note)
            elif old.first and text is not None:
                note = "replaced by a newer one"
                store.update_task(old.id, state=str(TaskState.CANCELLED), done_at=now, note=note)
        if text is not None:
            store.add_task(TaskRow(0, agent.identity, text, None, who, now, first=True))

    def reload(self, agent: Agent) -> None:
        """Read one agent's queue anew, after a decision that changed it."""
        if self._supervisor.store is not None:
            self._remember(agent.identity, self._supervisor.store.tasks(agent.identity))

    def _remember(self, identity: str, tasks: list[TaskRow]) -> None:
        if tasks:
            self._waiting[identity] = tasks
        else:
            self._waiting.pop(identity, None)

    def waiting(self, agent: Agent) -> list[TaskRow]:
        """Return an agent's tasks that are not delivered, the next one first."""
        return self._waiting.get(agent.identity, [])

    def next_topic(self, agent: Agent) -> str | None:
        """Return the topic of the task whose turn is next."""
        tasks = self.waiting(agent)
        return tasks[0].topic if tasks else None

    def cancel(self, agent: Agent, tasks: list[TaskRow], note: str, who: str) -> list[TaskRow]:
        """Take tasks out of the queue, undelivered; one that is being typed stays.

        Returns:
            Those that were cancelled.
        """
        chosen = [task for task in tasks if task.state != str(TaskState.TYPING)]
        if chosen:

            def writes(store: Store) -> None:
                for task in chosen:
                    store.update_task(task.id, state=str(TaskState.CANCELLED), done_at=time.time(), note=note)

            numbers = ",".join(str(task.id) for task in chosen)
            self._supervisor.record(
                agent,
                "task",
                {"action": "cancelled", "who": who, "task": numbers, "reason": note, **_kinds(*chosen)},
                durable=True,
                must=True,
                writes=writes,
            )
            self.reload(agent)
        return chosen

    # -- typing ------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Type what waits, and look after workers that died; costs nothing where nothing waits."""
        for identity in list(self._waiting):
            agent = self._supervisor.roster.agents.get(identity)
            try:
                if agent is not None:
                    self.work(agent)
            except StoreError as error:
                self._supervisor.store_trouble = str(error)

    def _weed(self, agent: Agent) -> None:
        """Cancel what is not to be typed any more."""
        past: dict[str, list[TaskRow]] = {}
        for task in self.waiting(agent):
            why = delivery_checks.not_to_be_typed(self._supervisor, agent, task)
            if why:
                past.setdefault(why, []).append(task)
        for why, tasks in past.items():
            try:
                self.cancel(agent, tasks, why, "circusd")
            except StoreError as error:
                # They are found again before anything is typed.
                self._supervisor.store_trouble = str(error)
                return
            agent.wake_waiters()

    def work(self, agent: Agent) -> None:
        """Have the next task typed, if the agent is ready and nobody is at it."""
        supervisor = self._supervisor
        if supervisor.store is not None:
            self._weed(agent)
        state, store, tasks = supervisor.state, supervisor.store, self.waiting(agent)
        if state is None or store is None or not tasks or supervisor.arbiter._stopping:
            return
        task = next((one for one in tasks if one.state == str(TaskState.TYPING)), tasks[0])
        if task.worker is not None:
            if process_table.may_run(task.worker):
                return
            # What a worker that is gone had to report, it has reported.
            supervisor.take_in_reports()
            again = next((one for one in self.waiting(agent) if one.id == task.id), None)
            if again is None or again.state != task.state:
                return
        if agent.phase is not Phase.UP or agent.action is not None or agent.wedged or agent.observed:
            if task.state == str(TaskState.TYPING) and agent.phase is not Phase.UP:
                self._back(agent, task, "its launch ended before it was seen to take the task")
            return
        if agent.health().state in (State.WAITING, State.LIMITED):
            # A dialog is open, or may be: a figure in what is typed would choose one of its entries.
            return
        if task.state == str(TaskState.TYPING) and task.generation != agent.row.generation:
            self._back(agent, task, "its launch ended before it was seen to take the task")
            self._weed(agent)
            if not self.waiting(agent):
                return
            task = self.waiting(agent)[0]
        now = time.monotonic()
        pause = RETRY_SECS[min(task.attempts, len(RETRY_SECS) - 1)]
        if now - self._tried.get(task.id, -1e9) < pause or self._typists() >= TYPISTS:
            return
        self._tried[task.id] = now
        try:
            self._type(agent, task)
        except (OSError, StoreError) as error:
            supervisor.store_trouble = str(error)
            logger.error(
                "circus-failover: task %d of %s could not be typed: %s", task.id, agent.identity, error
            )

    def _typists(self) -> int:
        self._workers = {one for one in self._workers if process_table.may_run(one)}
        return len(self._workers)

    def _type(self, agent: Agent, task: TaskRow) -> None:
        state, store = self._supervisor.state, self._supervisor.store
        assert state is not None and store is not None
        known = store.task(task.id)
        if known is None or known.state != task.state:
            # Whatever is remembered here, the store says whether it is to be typed.
            self.reload(agent)
            return
        order, text, journal = self._files(task)
        told = self._supervisor.assignments.text_of(agent, task) if is_assignment(task) else task.text
        private_file.write(text, told)
        private_file.write(
            order,
            json.dumps(
                {
                    "kind": "type",
                    "task": task.id,
                    "identity": agent.identity,
                    "generation": agent.row.generation,
                    "launch": agent.row.launch,
                    **whereabouts(agent),
                    "socket": agent.row.socket,
                    "session": agent.row.session,
                    "text_file": str(text),
                    "journal": str(journal),
                    "spool": str(state.spool),
                    "lock": str(state.agent_lock(agent.identity)),
                    "secs": TYPING_SECS,
                    "expires_at": task.expires_at,
                }
            ),
        )
        # Stored first: a circusd that dies right behind this must know that the task may be on the screen.
        self._change(
            agent,
            task,
            state=str(TaskState.TYPING),
            generation=agent.row.generation,
            attempts=task.attempts + 1,
        )
        crashpoint.reached("task-typing")
        worker = start_worker(order)
        if worker is not None:
            self._workers.add(worker)
        self._change(
            agent,
            task,
            worker_pid=worker.pid if worker else None,
            worker_start=worker.start if worker else None,
        )

    def _files(self, task: TaskRow) -> tuple[Path, Path, Path]:
        assert self._supervisor.state is not None
        stem = self._supervisor.state.task_stem(task.id)
        return stem.with_suffix(".json"), stem.with_suffix(".text"), stem.with_suffix(".journal")

    def _tidy(self, task: TaskRow) -> None:
        for path in self._files(task):
            path.unlink(missing_ok=True)

    def _change(self, agent: Agent, task: TaskRow, **values: Any) -> None:
        store = self._supervisor.store
        assert store is not None
        with store.decision(durable=False):
            store.update_task(task.id, **values)
        tasks = self._waiting[agent.identity]
        for index, one in enumerate(tasks):
            if one.id == task.id:
                tasks[index] = replace(one, **values)

    def _back(self, agent: Agent, task: TaskRow, note: str) -> None:
        """Nobody saw the agent take it, and its launch is gone: it waits for the next one."""
        self._change(
            agent,
            task,
            state=str(TaskState.QUEUED),
            worker_pid=None,
            worker_start=None,
            note=note,
            attempts=0,
        )
        self._tidy(task)

    def interrupt(self, agent: Agent) -> None:
        """The agent is to be ended: its typist stops at the next safe step, and frees the lock.

        One that ended by itself interrupts nobody: its typist sees in the dead pane how it ended.
        """
        for task in self.waiting(agent):
            if task.worker is not None:
                process_table.send(task.worker, signal.SIGTERM)

    # -- reports -----------------------------------------------------------------------------------

    def typed(self, name: str, report: dict[str, Any]) -> None:
        """Take in a typist's report, once: the task was taken, or waits for another try."""
        supervisor = self._supervisor
        store, agent = supervisor.store, supervisor.roster.agents.get(str(report["identity"]))
        if store is None:
            raise StoreError("there is no store")
        task = store.task(int(report["task"]))
        if task is None or task.state != str(TaskState.TYPING):
            with store.decision(durable=False):
                store.take_in(name, time.time())
            if task is not None:
                self._tidy(task)
            return
        seen, at = report["outcome"] == "taken", float(report["at"])
        taken = seen or (is_assignment(task) and delivery_checks.died_at_it(supervisor, agent, report))
        note = str(report.get("note") or report["outcome"])
        conversation = agent.row.conversation if agent is not None else None
        current = agent is not None and agent.row.generation == report["generation"]

        def writes(opened: Store) -> None:
            opened.take_in(name, time.time())
            if taken:
                opened.update_task(task.id, state=str(TaskState.DELIVERED), done_at=at, note=None)
                if is_assignment(task):
                    # A short turn may be over before its typist has seen that it began.
                    entered = float(report.get("entered_at") or at)
                    supervisor.assignments.delivered(opened, agent, task, entered, seen=seen)
                if task.topic and conversation and current:
                    opened.add_topic(conversation, task.topic, task.identity, at)
            else:
                opened.update_task(
                    task.id,
                    state=str(TaskState.QUEUED),
                    worker_pid=None,
                    worker_start=None,
                    note=note,
                )

        if agent is None:
            with store.decision(durable=True):
                writes(store)
            supervisor.assignments.records.told(task)
            return
        changes = {"last_task": at} if taken else {}
        supervisor.record(
            agent,
            "task",
            {
                "action": "delivered" if taken else "not-delivered",
                "task": task.id,
                "topic": task.topic,
                "reason": report.get("note") or None,
                **_kinds(task),
            },
            durable=True,
            must=True,
            writes=writes,
            **changes,
        )
        supervisor.assignments.records.told(task)
        self._tidy(task)
        self._tried[task.id] = time.monotonic()
        if taken:
            self._tried.pop(task.id, None)
        kept = [one for one in self.waiting(agent) if one.id != task.id]
        if not taken:
            again = replace(task, state=str(TaskState.QUEUED), worker_pid=None, worker_start=None, note=note)
            kept = sorted([*kept, again], key=lambda one: (not one.first, one.id))
        self._remember(agent.identity, kept)
        agent.wake_waiters()
        supervisor.assignments.look(agent)
        self.work(agent)

    def entered(self, task: TaskRow) -> bool:
        """Say whether the typist of a task has come to sending Enter: its agent may have taken it by now."""
        try:
            kept = json.loads(self._files(task)[2].read_bytes())
            same = kept["name"][:3] == [task.id, task.identity, task.generation]
            return bool(same and kept["stage"] in ("entering", "taken"))
        except (OSError, ValueError, LookupError, TypeError):
            return False

    # -- answers -----------------------------------------------------------------------------------

    def promise(self, task: TaskRow, up: bool) -> dict[str, Any]:
        """Return what a verdict says of a task that was queued for an agent that is up, or is not."""
        found = self._supervisor.store.task(task.id) if self._supervisor.store is not None else None
        if found is not None and found.state == str(TaskState.CANCELLED):
            note = f"task {task.id} is cancelled ({found.note})"
            return {"task": task.id, "task_state": found.state, "tasks_note": note}
        note = f"task {task.id} is queued" if up else f"task {task.id} is not delivered and stays queued"
        return {"task": task.id, "task_state": str(TaskState.QUEUED), "tasks_note": note}

    async def delivered(self, agent: Agent, task: TaskRow, until: float) -> dict[str, Any]:
        """Wait until a task was taken, and return what the verdict says of it."""
        while True:
            found = self._supervisor.store.task(task.id) if self._supervisor.store is not None else None
            if found is None or found.state in (str(TaskState.DELIVERED), str(TaskState.CANCELLED)):
                state = found.state if found else "unknown"
                note = f"task {task.id} is {state}"
                return {"task": task.id, "task_state": state, "ok": state == "delivered", "tasks_note": note}
            left, typing = until - time.monotonic(), found.state == str(TaskState.TYPING)
            # A typist whose agent ended by itself still says whether the task was taken.
            if left <= 0 or (agent.phase is not Phase.UP and not typing):
                why = found.note or (
                    "it is not up any more" if agent.phase is not Phase.UP else "no time left"
                )
                note = f"task {task.id} is not delivered ({why}) and stays queued"
                return {"task": task.id, "task_state": found.state, "ok": False, "tasks_note": note}
            await agent.next_change(min(left, 0.5))


def _kinds(*tasks: TaskRow) -> dict[str, str]:
    """Return what a log line says of tasks that are not simply somebody's."""
    kinds = sorted({task.kind for task in tasks})
    return {} if kinds == [str(TaskKind.TASK)] else {"kind": ",".join(kinds)}
