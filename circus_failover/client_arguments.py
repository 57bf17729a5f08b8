"""Which arguments of a configured command line are the supervisor's to give, so that an operator may not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from circus_failover.agents.runtime import Runtime


def owned_in_arguments(words: Sequence[str], runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Yield each word that is one of the supervisor's arguments, and what is expected instead.

    Args:
        words: arguments of the client.
        runtime: which client.
    """
    before = ""
    for word in words:
        # The value of another option is no argument: `--model resume`.
        if before not in runtime.valued_arguments:
            yield from ((word, expected) for expected in _expected(word, runtime, long_only=False))
        before = "" if before in runtime.valued_arguments else word


def owned_in_command(words: Sequence[str], runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Yield the same of a whole command line, in which the client may stand behind another program.

    What stands before the client is that program's, as in `nice -n 5 claude`. Where the client cannot be made
    out, only long options are looked at: `-c` means another thing to `sh`.

    Args:
        words: the command line.
        runtime: which client.
    """
    for index, word in enumerate(words):
        if runtime.program is not None and os.path.basename(word) == runtime.program:
            yield from owned_in_arguments(words[index + 1 :], runtime)
            return
    for word in words[1:]:
        yield from ((word, expected) for expected in _expected(word, runtime, long_only=True))


def _expected(word: str, runtime: Runtime, *, long_only: bool) -> Iterator[str]:
    for argument, reason in runtime.owned_arguments.items():
        if (argument.startswith("--") or not long_only) and _is(word, argument):
            yield f"no {argument}: {reason}"


def _is(word: str, argument: str) -> bool:
    """Say whether a word is an argument, alone or with its value behind it in the same word."""
    if word == argument:
        return True
    if argument.startswith("--"):
        return word.startswith(argument + "=")
    return len(argument) == 2 and argument.startswith("-") and word.startswith(argument)
