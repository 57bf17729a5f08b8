"""What an agent is told whose launch was ended in the middle of its work: the table, and nothing else.

Its turn, the first match wins:

| its next launch | its last turn | it is told |
|---|---|---|
| has an assignment | any | nothing: its assignment goes on by itself |
| any | was about an assignment that is over, or another's now | nothing |
| goes on in the conversation | failed, or was cut | that it goes on |
| goes on in the conversation | interrupted, not before its end was asked for: by that | that it goes on |
| goes on in the conversation | interrupted before that, by a person | nothing |
| goes on in the conversation | answered, or there was none | nothing |
| goes on in the conversation | unknown; it was limited, or had work and was not seen idle | that it goes on |
| goes on in the conversation | unknown otherwise | nothing |
| begins anew | failed, cut or interrupted as above, or unknown with work as above | the newest task it took |
| begins anew | any other | nothing |

Its tasks, each of them, whatever its turn was:

| task | conversation | done |
|---|---|---|
| it was seen to take it | certainly lacks it | again |
| it was seen to take it | has it, or that cannot be told | nothing |
| it was being typed, and waits again | has it | nothing more: it counts as taken |
| a client's own command (`/...`) | any | nothing: transcripts keep it in other words |

A conversation certainly lacks a task when it was looked at back to the time before that was typed, no prompt
has the text, none is newer than the task, none from that time on is unlike every task (that one might be it,
in other words), and another task is found in it, or nothing at all was said in it. A task that comes again is
told as a whole. What a conversation has is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from circus_failover.words import Word

TYPED_SECS = 60.0
"""Between the Enter of a task and the report that it was taken there is at most so much time."""
COMPARED = 200
"""So many characters of a task are looked for in a prompt, without its spaces."""
COARSE_SECS = 1.0
"""A time in a transcript may be without its fraction."""
SHORT = 20
"""What has fewer may be in any prompt: it has to be all of it."""
GO_ON = (
    "Your session ended in the middle of a turn, and was resumed. Go on with it where you left off; what you "
    "have finished already is not to be done again."
)


class TurnEnd(Word):
    """How the last turn of a conversation ended."""

    NONE = "none"
    """There was none."""
    ANSWERED = "answered"
    FAILED = "failed"
    """An error stands in the place of the answer."""
    INTERRUPTED = "interrupted"
    """Somebody interrupted it; clients write this also when they are ended."""
    CUT = "cut"
    """Nothing ended it: its client did."""


@dataclass(frozen=True)
class Prompt:
    """Something that a conversation was told."""

    text: str
    at: float | None = None
    """When, in epoch seconds; None: unknown."""


@dataclass(frozen=True)
class OpenTurn:
    """What a conversation says of its last turn, and of what it was told."""

    end: TurnEnd
    at: float | None = None
    """When it ended so, in epoch seconds; None: unknown."""
    prompts: tuple[Prompt, ...] = ()
    """What it was told, as far as it was looked at."""
    reaches: float = 0.0
    """Since when every prompt is among these, in epoch seconds; 0: they are all there are."""


@dataclass(frozen=True)
class Taken:
    """A task of the launch that was ended."""

    id: int
    text: str
    at: float | None
    """When it was seen to be taken, in epoch seconds; None: it waits again, since that was not seen."""
    queued_at: float = 0.0
    """When it was given, in epoch seconds: no prompt before that is this task."""


@dataclass(frozen=True)
class Interrupted:
    """A launch that was ended on purpose, the one that follows, and what is known of its work."""

    resumes: bool
    """The next launch goes on in the very conversation that the ended one was in."""
    assigned: bool
    turn: OpenTurn | None
    """None: nobody can tell."""
    limited: bool
    """It was ended since nothing could be done on its account."""
    busy: bool
    """It had taken a task, and was not seen idle since."""
    ended_at: float | None
    """When its end was asked for, in epoch seconds; None: unknown."""
    tasks: tuple[Taken, ...] = ()
    """What was typed into its conversation, in order."""
    past: bool = False
    """The newest of that was an assignment that is over, or another's now."""


@dataclass(frozen=True)
class Continuation:
    """What the next launch is told before anything else, and why."""

    go_on: bool
    """That its turn goes on."""
    again: tuple[int, ...]
    """The tasks that it is told once more, by their ids."""
    had: tuple[int, ...]
    """The tasks that wait and that its conversation has already."""
    reason: str


def decide(cut: Interrupted) -> Continuation:
    """Return what an agent is told whose launch was ended in the middle of its work."""
    turn, there = cut.turn, _there(cut)
    taken = [task for task in cut.tasks if task.at is not None and not _command(task)]
    again = [one.id for one in taken if one.id not in there and turn and _lacks(turn, one, cut.tasks)]
    had = tuple(task.id for task in cut.tasks if task.at is None and task.id in there)
    if cut.assigned:
        return Continuation(False, tuple(again), had, "it has an assignment, which goes on by itself")
    if cut.past:
        return Continuation(False, tuple(again), had, "its assignment is over, or another's now")
    is_open, reason = _open(cut)
    if cut.resumes:
        return Continuation(is_open, tuple(again), had, reason)
    if is_open and taken and taken[-1].id not in again:
        again.append(taken[-1].id)
    # What a conversation has that does not go on helps nobody: a task that waits is told as it is.
    return Continuation(False, tuple(again), (), f"{reason}; it begins anew")


def _open(cut: Interrupted) -> tuple[bool, str]:
    """Say whether a turn was on that has no answer, and why."""
    turn = cut.turn
    if turn is None:
        if cut.limited or cut.busy:
            why = "it was at a limit" if cut.limited else "it had work and was not seen idle since"
            return True, f"how its last turn went is unknown, and {why}"
        return False, "how its last turn went is unknown, and it had no work"
    if turn.end is TurnEnd.INTERRUPTED:
        ours = turn.at is not None and cut.ended_at is not None and turn.at >= cut.ended_at
        return ours, "its end interrupted its turn" if ours else "its last turn was interrupted by a person"
    if turn.end is TurnEnd.NONE:
        return False, "nothing was said in its conversation"
    words = {TurnEnd.FAILED: "has failed", TurnEnd.CUT: "has no answer", TurnEnd.ANSWERED: "was answered"}
    return turn.end is not TurnEnd.ANSWERED, f"its last turn {words[turn.end]}"


def _command(task: Taken) -> bool:
    return task.text.lstrip().startswith("/")


def _there(cut: Interrupted) -> set[int]:
    """Return the tasks that the conversation has; of the same text as many as it was told."""
    found: set[int] = set()
    spent: set[tuple[int, str]] = set()
    for task in cut.tasks:
        for number, prompt in enumerate(cut.turn.prompts if cut.turn is not None else ()):
            before = prompt.at is not None and prompt.at < task.queued_at - COARSE_SECS
            if not before and not _command(task) and _is(prompt, task) and (number, task.text) not in spent:
                found.add(task.id)
                spent.add((number, task.text))
                break
    return found


def _lacks(turn: OpenTurn, task: Taken, tasks: Iterable[Taken]) -> bool:
    """Say whether a conversation certainly was not told a task of which it has no prompt."""
    if task.at is None or turn.reaches > task.at - TYPED_SECS:
        return False
    # A format in which none is found may be a new one.
    understood = turn.end is TurnEnd.NONE
    for prompt in turn.prompts:
        if prompt.at is None or prompt.at > task.at:
            return False
        known = _plain(GO_ON) in _plain(prompt.text) or any(_is(prompt, one) for one in tasks)
        if prompt.at >= task.at - TYPED_SECS and not known:
            return False
        understood = understood or known
    return understood


def _is(prompt: Prompt, task: Taken) -> bool:
    begins, said = _plain(task.text)[:COMPARED], _plain(prompt.text)
    return begins in said if len(begins) >= SHORT else bool(begins) and begins == said


def _plain(text: str) -> str:
    """Return a text without its spaces: clients wrap lines, and join prompts."""
    return "".join(text.split())
