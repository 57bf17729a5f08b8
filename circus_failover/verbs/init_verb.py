"""The verb `init`: reads options, asks on a terminal, prints; what it does is in `circus_failover.init`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND, REFUSED, USAGE, Failed
from circus_failover.problems import printable
from circus_failover.verbs.local_tools import print_json, progress, warn

if TYPE_CHECKING:
    from circus_failover.client_hooks import Plan as HooksPlan
    from circus_failover.init.dialogue import Dialogue
    from circus_failover.init.plan import Wish
    from circus_failover.init.setting_up import Prepared
    from circus_failover.init.survey import Survey
    from circus_failover.init.wishes import Options


class Init(Command):  # type: ignore[misc]
    """\
    Make a fleet of the accounts on this machine
    ============================================

    Looks at this machine (clients, account homes, tmux sessions that run a client), asks which homes are
    accounts and where agents work, writes failover.yaml and a circus.ini with one watcher an agent, sets up
    the links to shared state, and ends by what `validate` says. What is there is never overwritten, and
    conversations are moved into the shared folder only when you say so. Credentials are never touched.

    Interrupted at any moment, the next `init` goes on; `init --undo` puts everything back but hooks, which
    `failoverctl hooks remove` takes out.

    Command line
    ------------

    ::

        $ failoverctl init [--dir FOLDER]
        $ failoverctl init --yes --account work=~/.claude --agent scout=~/src/app --move-data
        $ failoverctl init --dry-run
        $ failoverctl init --undo

    Options
    +++++++

    - <dir>: the folder that gets the files; else this one
    - <yes>: ask nothing; options and defaults decide. Data is moved only with --move-data
    - <dry-run>: show the plan and the files, and change nothing
    - <account>: NAME=HOME[:RUNTIME], an account; may be given again. Else every home that is found
    - <second-account>: NAME=HOME[:RUNTIME], an account whose home is made when it is not there
    - <agent>: NAME=DIR[:ACCOUNT], an agent; may be given again. Else one that works in this folder
    - <shared>: the folder that the homes link into; else the one they link into already, else
      ~/.circus-failover/shared
    - <no-shared>: share nothing; each account keeps its own conversations
    - <program>: the command line that every agent runs in place of its client
    - <socket>: a further tmux socket to look at; may be given again
    - <hooks>: also put our hooks into each account's settings (`failoverctl hooks`), which tell circusd at
      once what its clients do; without it, each change is shown and asked about. `hooks remove` undoes it
    - <move-data>: move what the homes hold into the shared folder
    - <force>: replace files that are there, keeping backups
    - <undo>: take the newest init in the folder back
    """

    name = "init"
    msg_type = "local"
    options: list[tuple[str, str, Any, str]] = [
        ("", "dir", None, "the folder that gets the files"),
        ("", "yes", False, "ask nothing"),
        ("", "dry-run", False, "show plan and files, change nothing"),
        ("", "account", [], "NAME=HOME[:RUNTIME]; may be given again"),
        ("", "second-account", [], "NAME=HOME[:RUNTIME]; its home is made"),
        ("", "agent", [], "NAME=DIR[:ACCOUNT]; may be given again"),
        ("", "shared", None, "the folder that the homes link into"),
        ("", "no-shared", False, "share nothing"),
        ("", "program", None, "what every agent runs in place of its client"),
        ("", "socket", [], "a further tmux socket to look at"),
        ("", "hooks", False, "put our hooks into each account's settings"),
        ("", "move-data", False, "move what the homes hold into the shared folder"),
        ("", "force", False, "replace files that are there, keeping backups"),
        ("", "undo", False, "take the newest init in the folder back"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Make a fleet, show how, or take it back; return 0, or 1 when validate finds something."""
        if args:
            raise ArgumentError(f"init takes options only, not {args[0]!r}; --dir names the folder")
        if options["no-shared"] and (options["shared"] or options["move-data"]):
            raise ArgumentError("--no-shared shares nothing: it goes with neither --shared nor --move-data")
        from circus_failover.init import setting_up
        from circus_failover.init.wishes import absolute

        folder = absolute(options["dir"] or ".")
        if options["undo"]:
            return _undo(opts, folder, bool(options["dry-run"]))
        pending = setting_up.unfinished(folder)
        if pending is not None:
            return _go_on(opts, folder, bool(options["dry-run"]))
        asks = not (options["yes"] or options["dry-run"])
        if asks and (opts["json"] or not (sys.stdin.isatty() and sys.stderr.isatty())):
            raise Failed("nobody can be asked here: expected --yes or --dry-run, or a terminal", USAGE)
        try:
            return _init(opts, _options(folder, options), options, asks)
        except EOFError as error:
            raise Failed("no answer: nothing was changed") from error


def _options(folder: Path, options: dict[str, Any]) -> Options:
    from circus_failover.init.wishes import Options, absolute

    return Options(
        folder=folder,
        base=Path(os.path.expanduser("~")),
        here=Path(os.getcwd()),
        accounts=options["account"],
        second=options["second-account"],
        agents=options["agent"],
        root=absolute(options["shared"]) if options["shared"] else None,
        no_shared=options["no-shared"],
        program=options["program"],
        move_data=options["move-data"],
        force=options["force"],
    )


def _init(opts: dict[str, Any], chosen: Options, options: dict[str, Any], asks: bool) -> int:
    from circus_failover.init import setting_up, shown, survey, wishes

    named = [wishes.named_home(text) for text in (*chosen.accounts, *chosen.second)]
    with progress() as say:
        say("looking at this machine")
        found = survey.look(os.environ, [wishes.absolute(path) for path in options["socket"]], named)
    if not opts["json"]:
        print("\n".join(shown.survey_lines(found)), file=sys.stderr if asks else sys.stdout)
    dialogue = _dialogue() if asks else None
    if dialogue is not None:
        prepared = _agreed(dialogue, dialogue.wish(chosen, found))
    else:
        prepared = setting_up.prepare(wishes.wish(chosen, found))
    dry = bool(options["dry-run"])
    if not opts["json"] and (dry or not asks):
        print("\n".join(shown.plan_lines(prepared.plan)))
    answer: dict[str, Any] = {"status": "ok", "dry_run": dry, "survey": shown.survey_json(found)}
    answer["plan"] = shown.plan_json(prepared.plan, prepared.texts)
    refusals = [*prepared.plan.refusals, *prepared.busy]
    if dry:
        if opts["json"]:
            print_json({**answer, "busy": list(prepared.busy)}, opts)
        else:
            for path, text in prepared.texts.items():
                print(f"\n--- {printable(path)}\n{text}", end="")
            if options["hooks"]:
                _hooks(prepared.wish, _only_shown)
    elif refusals and opts["json"]:
        print_json({**answer, "status": "error", "reason": "; ".join(refusals)}, opts)
    if refusals:
        for refusal in refusals:
            warn(refusal)
        raise Failed("nothing was changed" if not dry else "an init would refuse this", REFUSED)
    if dry:
        return 0
    setting_up.apply(prepared, time.time())
    if options["hooks"] or dialogue is not None:
        answer["hooks"] = _hooks(prepared.wish, lambda plan: dialogue is None or _wants(dialogue, plan))
    return _finished(opts, answer, prepared.wish, found)


def _hooks(wish: Wish, agreed: Callable[[HooksPlan], bool]) -> dict[str, str]:
    """Put our hooks into the settings of accounts, where that is agreed to; return where, by account."""
    from circus_failover import client_hooks

    there = {}
    for account in wish.accounts:
        if account.runtime not in client_hooks.FILES:
            continue
        try:
            plan = client_hooks.installing(account.runtime, account.home, client_hooks.reporter())
            if plan.changes and not agreed(plan):
                continue
            client_hooks.carry_out(plan)
            there[account.name] = str(plan.target)
        except client_hooks.HooksError as error:
            warn(f"no hooks for {account.name}: {error}")
    return there


def _wants(dialogue: Dialogue, plan: HooksPlan) -> bool:
    """Show a change of an account's settings, and ask whether it is made."""
    print(_lines(plan.diff()), file=sys.stderr)
    try:
        return dialogue.yes(
            f"Write these hooks into {plan.target}? They tell circusd at once what clients do"
        )
    except EOFError:
        return False


def _only_shown(plan: HooksPlan) -> bool:
    print(f"\n{_lines(plan.diff())}")
    return False


def _lines(text: str) -> str:
    """Return a text of several lines in which nothing can move a cursor."""
    return "\n".join(printable(line) for line in text.splitlines())


def _dialogue() -> Dialogue:
    from rich.console import Console

    from circus_failover.init.dialogue import Dialogue

    return Dialogue(Console(stderr=True))


def _agreed(dialogue: Dialogue, wish: Wish) -> Prepared:
    """Show the plan, and ask whether data is moved and whether to go ahead.

    Raises:
        Failed: no.
    """
    from dataclasses import replace

    from circus_failover.init import setting_up, shown

    prepared = setting_up.prepare(wish)
    print("\n".join(shown.plan_lines(prepared.plan)), file=sys.stderr)
    if prepared.plan.moves and not wish.move_data and not prepared.busy:
        question = "Move this data into the shared folder (init --undo moves it back)?"
        if dialogue.yes(question):
            prepared = setting_up.prepare(replace(wish, move_data=True))
    if not prepared.plan.refusals and not prepared.busy and not dialogue.yes("Go ahead?", True):
        raise Failed("nothing was changed")
    return prepared


def _finished(opts: dict[str, Any], answer: dict[str, Any], wish: Wish, found: Survey) -> int:
    """Say what validate makes of the result, and what comes next."""
    from circus.commands import get_commands

    from circus_failover.init import files, shown
    from circus_failover.validation import validate

    report = validate(wish.folder / files.INI)
    commands = shown.next_lines(wish, found, get_commands(), report, answer.get("hooks", ()))
    if opts["json"]:
        print_json({**answer, "validate": shown.report_json(report), "next": commands}, opts)
    else:
        print("\n".join(shown.report_lines(report)))
        print("\n".join(f"next     {command}" for command in commands))
    if not report.ok:
        warn(f"{wish.folder / files.INI}: validate found something; init --undo takes all of it back")
    return 0 if report.ok else FOUND


def _go_on(opts: dict[str, Any], folder: Path, dry: bool) -> int:
    """Carry an interrupted init to its end; its own plan counts, not today's options."""
    from circus_failover.init import files, setting_up, shown
    from circus_failover.validation import validate

    journal = setting_up.newest(folder)
    steps = [str(step) for step in journal.header.steps[max(journal.at, 0) :]]
    if dry:
        _say(opts, {"status": "ok", "dry_run": True, "goes_on": True, "steps": steps}, steps, "would   ")
        return 0
    setting_up.resume(folder)
    report = validate(folder / files.INI)
    validated = shown.report_json(report)
    answer = {"status": "ok", "dry_run": False, "goes_on": True, "steps": steps, "validate": validated}
    _say(opts, answer, ["an interrupted init was carried to its end"], "went on ")
    if not opts["json"]:
        print("\n".join(shown.report_lines(report)))
    return 0 if report.ok else FOUND


def _undo(opts: dict[str, Any], folder: Path, dry: bool) -> int:
    from circus_failover.init import setting_up

    journal = setting_up.newest(folder)
    steps = [str(step) for step in reversed(journal.header.steps[: journal.at + 1])]
    if dry:
        _say(opts, {"status": "ok", "dry_run": True, "steps": steps}, steps, "undo    ")
        return 0
    left = setting_up.undo(folder)
    answer = {"status": "ok", "dry_run": False, "steps": steps, "left": left}
    _say(opts, answer, [f"{len(steps)} steps were taken back", *left], "undo    ")
    return 0


def _say(opts: dict[str, Any], answer: dict[str, Any], lines: list[str], word: str) -> None:
    if opts["json"]:
        print_json(answer, opts)
    else:
        print("\n".join(f"{word} {line}" for line in lines))
