"""What the verbs that run in failoverctl share: arguments, JSON, and showing what is being waited for."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from circus.exc import ArgumentError

from circus_failover.failure import Failed


def at_most_one(verb: str, args: tuple[str, ...]) -> str | None:
    """Return the one circus.ini that was named, or None.

    Raises:
        ArgumentError: there is more than one argument.
    """
    if len(args) > 1:
        raise ArgumentError(f"{verb} takes one circus.ini, not {len(args)} arguments")
    return args[0] if args else None


def print_json(answer: dict[str, Any], opts: dict[str, Any]) -> None:
    """Print an answer as JSON, indented on a terminal with --prettify."""
    from circus import circusctl

    print(circusctl.prettify(answer, prettify=opts["prettify"] and sys.stdout.isatty()))


def warn(text: object) -> None:
    """Print one line on standard error."""
    print(f"failoverctl: {text}", file=sys.stderr)


def by() -> str:
    """Return who asks, for circusd's records."""
    try:
        return f"{getpass.getuser()}@failoverctl"
    except (KeyError, OSError):
        return f"uid{os.getuid()}@failoverctl"


def consent(question: str) -> None:
    """Ask on the terminal whether something is written.

    Args:
        question: without the answers that there are.

    Raises:
        Failed: nobody can be asked, or the answer is no.
    """
    if not sys.stdin.isatty():
        raise Failed("nothing was written: --yes does it without asking, --dry-run only shows")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failed("nothing was written")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being waited for: on a terminal, on standard error, else nowhere."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(Text(text))
