"""Reads what a client was asked to do from a request: the part that both interfaces have in common.

A prompt may say how it wants to be answered, in double brackets:

    [[slow 5]]              the answer takes 5 seconds, a word at a time
    [[hold]]                it begins, and ends when the test releases it
    [[cut]]                 it begins, and the connection breaks
    [[bash COMMAND]]        the shell tool is called first; several brackets are several calls, in order
    [[ask COMMAND]]         the same, by a call that Codex asks about (Claude Code asks about every call)
    [[background COMMAND]]  the same, in the background (Claude Code alone)
    [[write PATH]]          the tool that writes a file is called first
    [[agent PROMPT]]        a sub-agent is started with this prompt, in which `((` and `))` are the brackets
                            (Claude Code alone)

Answers say what was heard, now and before, so that a test can prove which conversation this is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# What clients add to what a person typed: <system-reminder>, <environment_context>, <command-name>, ...
ADDED = re.compile(r"<([a-z][a-z_-]+)(?: [^>]*)?>.*?</\1>", re.DOTALL)
NOT_TYPED = ("[Request interrupted by user", "# AGENTS.md instructions")
DIRECTIVE = re.compile(r"\[\[(slow|hold|cut|bash|ask|background|write|agent)\b ?(.*?)\]\]", re.DOTALL)
TOOLS = ("bash", "ask", "background", "write", "agent")
HEARD = "heard: "
BEFORE = "; before: "


@dataclass(frozen=True)
class Step:
    """A call of a tool that a prompt asks for."""

    tool: str
    value: str


@dataclass(frozen=True)
class Turn:
    """What a request is to be answered with."""

    prompts: tuple[str, ...]
    """What the person typed in this conversation, in order, without the brackets; the newest last."""
    step: Step | None
    """The tool to call now; None for an answer in words."""
    secs: float
    """How long the words take."""
    hold: bool
    """Whether they wait for the test, after the first."""
    cut: bool
    """Whether the connection breaks after the first."""

    @property
    def text(self) -> str:
        """The answer in words."""
        if not self.prompts:
            return "ok"
        before = ", ".join(prompt[:60] for prompt in self.prompts[:-1])
        return HEARD + self.prompts[-1][:200] + (BEFORE + before if before else "")


def typed(text: str) -> str:
    """Return what a person typed in a text, without what the client has added; empty when nothing."""
    kept = ADDED.sub("", text).strip()
    return "" if kept.startswith(NOT_TYPED) else kept


def read(said: Iterable[tuple[str, str]]) -> Turn:
    """Return what a request is to be answered with.

    Args:
        said: the conversation in order: ("user", text) for what was typed, ("tool", name) for a call.
    """
    prompts: list[str] = []
    directives: list[tuple[str, str]] = []
    calls = 0
    for kind, text in said:
        if kind == "tool":
            calls += 1
        elif text := typed(text):
            prompts.append(" ".join(DIRECTIVE.sub("", text).split()))
            directives = DIRECTIVE.findall(text)
            calls = 0
    steps = [Step(name, value.strip()) for name, value in directives if name in TOOLS]
    others = dict(pair for pair in directives if pair[0] not in TOOLS)
    return Turn(
        prompts=tuple(prompts),
        step=steps[calls] if calls < len(steps) else None,
        secs=float(others.get("slow", 0)),
        hold="hold" in others,
        cut="cut" in others,
    )


def words(turn: Turn) -> list[str]:
    """Return the answer in pieces, as it is streamed; a slow one has more."""
    pieces = re.findall(r"\S+\s*", turn.text)
    return [f"{number}... " for number in range(1, int(turn.secs) + 1)] + pieces
