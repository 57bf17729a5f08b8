"""What the verbs take that the console offers: one model a body, with nothing that circusd would not take.

A field that is not given is not sent. Who asks (`by`) is no field: the server says that. Whether a name, an
account or a state allows what is asked for is circusd's to say, not checked here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from circus.commands.util import convert_option
from circus.exc import ArgumentError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from circus_failover.problems import describe
from circus_failover.words import WakeAsked

NAME_LENGTH = 255
MANY = 1000
"""So many names or ids are taken at once."""
TELL_SECS = 60.0
"""How long a text that somebody is told has to arrive, as in `failoverctl tell`."""
LONGEST_SECS = 300.0
"""No request waits longer: what takes longer is seen in the fleet."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MANY)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
SignalNumber = (
    Annotated[str, StringConstraints(min_length=1, max_length=20)] | Annotated[int, Field(ge=1, le=64)]
)


def may(description: str) -> Any:
    """Return the field of a property that need not be given; its schema has no default."""
    return Field(default_factory=lambda: None, description=description)


class Body(BaseModel):
    """A body without any property."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_enum_values=True)

    one_of: ClassVar[tuple[str, ...]] = ()
    """Of these properties exactly one is given."""

    @classmethod
    def __pydantic_init_subclass__(cls, **arguments: Any) -> None:
        super().__pydantic_init_subclass__(**arguments)
        if cls.one_of:
            cls.model_config["json_schema_extra"] = {"oneOf": [{"required": [name]} for name in cls.one_of]}

    @model_validator(mode="after")
    def _exactly_one(self) -> Body:
        given = self.model_fields_set.intersection(self.one_of)
        if self.one_of and len(given) != 1:
            raise ValueError(f"expected either {' or '.join(self.one_of)}, and not both")
        return self

    def properties(self) -> dict[str, Any]:
        """Return what circusd is sent."""
        return self.model_dump(exclude_unset=True)


class Waiting(Body):
    """Whether to wait for the end."""

    waiting: bool = Field(False, description=f"answer when it is over, at most {LONGEST_SECS:g} s later")


class OneWatcher(Body):
    """One watcher or agent, by its exact name."""

    name: Name = Field(description="the watcher")


class Watchers(Waiting):
    """Agents and other watchers, by name or pattern; all of them are `["*"]`."""

    one_of = ("name", "names")
    name: Name = may("one name or pattern")
    names: Names = may("several of them")
    match: str = Field(
        "glob", pattern="^(simple|glob|regex)$", description="how names are meant: simple, glob or regex"
    )


class Agents(Body):
    """Agents, by name or glob."""

    one_of = ("name", "names")
    name: Name = may("the name or glob of agents")
    names: Names = may("several of them")


class WaitingAgents(Agents, Waiting):
    """Agents, and whether to wait for the end."""


class Wake(WaitingAgents):
    """Which agents are woken, and what with."""

    mode: WakeAsked = Field(WakeAsked.NOTHING, strict=False, description="how their conversation goes on")
    topic: str = may("what the work is about: one that the conversation has not had yet begins a new one")
    task: str = may("a text that each is given when it is ready")
    delivered: bool = Field(False, description="also wait until the task was taken")


class Tell(Body):
    """What one agent is told now."""

    name: Name = Field(description="the identity of one agent")
    text: str = Field(description="what it is told", min_length=1)
    secs: float = Field(TELL_SECS, gt=4, le=LONGEST_SECS, description="seconds in which it has to arrive")

    def properties(self) -> dict[str, Any]:
        """Return what circusd is sent: it must know how long somebody listens."""
        return self.model_dump()


class Keys(Body):
    """Keys for one agent's terminal."""

    name: Name = Field(description="the identity of one agent")
    keys: str = Field(
        description="the bytes that the keys send, as text: `y\\r`, `\\u001b[A`",
        min_length=1,
        max_length=1000,
    )
    generation: Number = may("the launch that is meant; refused when another one runs")


class Switch(WaitingAgents):
    """Which agents go on on which account."""

    to: Name = may("the account; without it one is chosen for each")
    force: bool = Field(False, description="also when nothing can be done on the account, or it is full")
    dry_run: bool = Field(False, description="say what is in the way and what would be done; do nothing")


class Assign(Body):
    """Work, and whom it is for."""

    one_of = ("name", "pool")
    name: Name = may("the agent it is for")
    pool: Name = may("the pool it is for")
    task: str = Field(description="what the agent is told", min_length=1)
    id: Name = may("its id; else one is made. The same id with the same task is not assigned twice")
    topic: str = may("what the work is about")


class Assignments(Body):
    """Assignments, by id."""

    ids: Names = Field(description="the ids of assignments")


class Reassign(Assignments):
    """Assignments, and whom they go to."""

    one_of = ("name", "pool")
    name: Name = may("the agent that gets them")
    pool: Name = may("the pool that gets them")


class Tasks(Body):
    """Tasks that wait for agents; with `cancel` some of one agent's are cancelled."""

    name: Name = may("only those of this agent, or glob")
    names: Names = may("several of them")
    cancel: str = Field(
        default_factory=str,
        pattern="^(all|[0-9]{1,15})$",
        description="the number of one task of this one agent, or `all`",
    )


class Accounts(Body):
    """Accounts, and what is to be done about what is known of them."""

    action: str = Field(
        default_factory=str,
        pattern="^(check|forget)$",
        description="check: look whether each is logged in; forget: drop what is known of each",
    )
    name: Name = may("one account")
    names: Names = may("several of them; without a name all, which is for looking only")
    accept: bool = Field(False, description="with check: take it for logged in, where no file can tell")

    @model_validator(mode="after")
    def _named(self) -> Accounts:
        if "action" in self.model_fields_set and not self.model_fields_set & {"name", "names"}:
            raise ValueError("expected the names of accounts with an action")
        return self


class Nudge(Body):
    """An agent that is reminded of its assignment."""

    name: Name = Field(description="the identity of one agent")
    generation: Number = may("the launch that is meant; refused when another one runs")
    assignment: Name = may("the assignment that is meant; refused when it has another one")


class Remove(OneWatcher, Waiting):
    """A watcher that is removed."""

    nostop: bool = Field(False, description="only let go of it: its processes, or the agent, live on")
    free: bool = Field(False, description="only an agent that is idle, without work and tasks")


class Reload(Waiting):
    """Watchers whose processes are replaced."""

    name: Name = may("one watcher; else all")
    graceful: bool = Field(True, description="false: a plain restart")
    sequential: bool = Field(False, description="one process after the other")


class Count(OneWatcher, Waiting):
    """By how many processes."""

    nb: int = Field(1, ge=1, le=100, description="how many processes more or less")


class Set(OneWatcher, Waiting):
    """Options of a watcher; they last until circus.ini is read again."""

    options: Annotated[dict[Name, Any], Field(min_length=1, max_length=100)] = Field(
        description="values by option; a text is read as circusctl reads it"
    )

    @field_validator("options")
    @classmethod
    def _read(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {key: _option(key, value) if isinstance(value, str) else value for key, value in given.items()}


def _option(key: str, text: str) -> Any:
    try:
        return convert_option(key, text)
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Circus (0.19) lets through whatever its readers of single values raise.
        raise ValueError(f"{key}: found {describe(text)}, expected a value that it can have") from error


class Signal(OneWatcher):
    """A signal to processes of a watcher."""

    signum: SignalNumber = Field(description="a name such as TERM, or a number")
    pid: Number = may("one process; else all of the watcher's")
    childpid: Number = may("one child of that process")
    children: bool = Field(False, description="to the children only")
    recursive: bool = Field(False, description="to the children too")

    @model_validator(mode="after")
    def _child_of(self) -> Signal:
        if "childpid" in self.model_fields_set and "pid" not in self.model_fields_set:
            raise ValueError("expected a pid with childpid")
        return self


class Kill(OneWatcher, Waiting):
    """A process of a watcher that is ended."""

    pid: Number = may("one process; else all of the watcher's")
    signum: SignalNumber = may("another signal than the watcher's stop_signal")
    graceful_timeout: float = Field(
        default_factory=float,
        ge=0,
        le=86400,
        description="seconds until SIGKILL; else the watcher's own",
    )


class Processes(Body):
    """Whose processes are counted."""

    name: Name = may("one watcher; else all")
