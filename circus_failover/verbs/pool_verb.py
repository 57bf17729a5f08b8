"""`failoverctl pool`: reads its arguments, has `pool_changes` make what is asked for, and prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError

from circus_failover.failure import FOUND, REFUSED, Failed
from circus_failover.verbs.local_tools import by, consent, print_json, progress, warn

if TYPE_CHECKING:
    from circus_failover.pool_changes import Wishes
    from circus_failover.pool_site import Site

Given = Mapping[str, Any]
NAMED = {
    "runtime": "failover.runtime",
    "account": "failover.account",
    "working-dir": "working_dir",
    "command": "failover.command",
    "args": "failover.args",
}
"""Options of this verb that stand for one of a section."""


class PoolVerb(Command):  # type: ignore[misc]
    """\
    Make, resize, show or remove a pool of agents that stand in for one another
    ===========================================================================

    A pool is one ini file in the include_dir of circus.ini, with a watcher for each of its agents; this verb
    writes it, and lets circusd re-read its files. As many as --min says are always up; the others, up to
    --max, are started while work waits, and parked when idle. Its name is the prefix without the dash at
    its end. No other watcher is ever touched or counted.

    An agent with work never leaves: `resize` and `remove` name those that are not idle, or have an assignment
    or tasks, and change nothing.

    Command line
    ------------

    ::

        $ failoverctl pool create PREFIX --min M --max K [--start-index N] [options]
        $ failoverctl pool create ccl-auto- --start-index 11 --min 10 --max 20 --runtime claude --account a
              --working-dir /srv/w/{name} --set failover.idle_secs=900
        $ failoverctl pool resize NAME [--min M] [--max K]
        $ failoverctl pool show [NAME]
        $ failoverctl pool list
        $ failoverctl pool remove NAME

    Options
    +++++++

    - <min>: how many are always up (0)
    - <max>: how many there are (as many as --min)
    - <start-index>: the number of the first one (0)
    - <runtime>, <account>, <working-dir>, <command>, <args>: as in a section; {name} and {index} stand for
      the agent's
    - <set>: any other option of a section, KEY=VALUE; may be given again
    - <make-dirs>: make the working folders that are missing
    - <dry-run>: show the file that would be written, and write nothing
    - <yes>: end idle agents that leave without asking
    - <ini>: which circus.ini; else the one in this folder, else that of the circusd that answers
    """

    name = "pool"
    msg_type = "local"
    options = [
        ("", "min", "", "how many are always up (0)"),
        ("", "max", "", "how many there are (as many as --min)"),
        ("", "start-index", "", "the number of the first one (0)"),
        ("", "runtime", "", "failover.runtime"),
        ("", "account", "", "failover.account"),
        ("", "working-dir", "", "working_dir; {name} and {index} stand for the agent's"),
        ("", "command", "", "failover.command"),
        ("", "args", "", "failover.args"),
        ("", "set", [], "any other option of a section: KEY=VALUE"),
        ("", "make-dirs", False, "make the working folders that are missing"),
        ("", "dry-run", False, "show the file that would be written, and write nothing"),
        ("", "yes", False, "end idle agents that leave without asking"),
        ("", "ini", "", "which circus.ini"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Carry out one of the actions."""
        action, *names = args or ("",)
        if action not in _ACTIONS:
            raise ArgumentError(f"pool {action}: expected one of {', '.join(_ACTIONS)}")
        carry_out, least, most, wanted = _ACTIONS[action]
        if not least <= len(names) <= most:
            raise ArgumentError(f"pool {action} takes {wanted}")
        given = [key for key in ("start-index", *NAMED, "set") if options.get(key)]
        if given and action != "create":
            raise ArgumentError(f"pool {action} does not take --{given[0]}: it is said once, by `create`")
        from circus_failover.pool_file import PoolError
        from circus_failover.pool_site import site_of
        from circus_failover.problems import SettingsError

        try:
            site = site_of(str(options.get("ini") or "") or None, opts["endpoint"])
            return carry_out(site, opts, names, options)
        except PoolError as error:
            raise ArgumentError(str(error)) from error
        except SettingsError as error:
            problems = "\n".join(f"  {problem}" for problem in error.problems)
            what = "nothing can be shown" if action in ("show", "list") else "nothing was written"
            raise Failed(f"{what}, because of\n{problems}", FOUND) from error
        except OSError as error:
            raise Failed(f"the file of the pool cannot be written: {error}") from error


# -- the actions -------------------------------------------------------------------------------------


def _create(site: Site, opts: dict[str, Any], names: list[str], options: Given) -> int:
    from circus_failover import pool_changes, pool_file

    least, most = _number(options, "min"), _number(options, "max")
    if least is None and most is None:
        raise ArgumentError("pool create takes --max, or --min, or both")
    start, least = _number(options, "start-index") or 0, least or 0
    pool = pool_file.make(names[0], start, least, least if most is None else most, _template(options))
    return _say(opts, pool_changes.create(site, pool, _wishes(options)))


def _resize(site: Site, opts: dict[str, Any], names: list[str], options: Given) -> int:
    from circus_failover import pool_changes

    least, most = _number(options, "min"), _number(options, "max")
    if least is None and most is None:
        raise ArgumentError("pool resize takes --min or --max, or both")
    return _say(opts, pool_changes.resize(site, names[0], least, most, _wishes(options)))


def _remove(site: Site, opts: dict[str, Any], names: list[str], options: Given) -> int:
    from circus_failover import pool_changes

    return _say(opts, pool_changes.remove(site, names[0], _wishes(options)))


def _show(site: Site, opts: dict[str, Any], names: list[str], options: Given, shortly: bool = False) -> int:
    from circus_failover import pool_shown

    shown = pool_shown.pools(site, names[0] if names else None)
    if opts["json"]:
        if shortly:
            shown = [{key: one[key] for key in one if key not in ("members", "others")} for one in shown]
        print_json({"status": "ok", "ini": str(site.ini), "pools": shown}, opts)
        return 0
    for one in shown:
        print(pool_shown.headline(one) if shortly else "\n".join(pool_shown.lines(one)))
    if not shown:
        print(f"no pools in {site.ini}; `failoverctl pool create` makes one")
    return 0


_ACTIONS: dict[str, tuple[Callable[..., int], int, int, str]] = {
    "create": (_create, 1, 1, "the prefix of its agents"),
    "resize": (_resize, 1, 1, "the name of one pool"),
    "show": (_show, 0, 1, "the name of one pool, or none"),
    "list": (partial(_show, shortly=True), 0, 0, "no name"),
    "remove": (_remove, 1, 1, "the name of one pool"),
}
"""Who carries it out, how many names it takes, and what they are."""


def _say(opts: dict[str, Any], answer: dict[str, Any]) -> int:
    """Print what was done, and return the exit code."""
    from circus_failover.screen import plain

    failed: list[str] = []
    if answer.get("circusd") == "error":
        failed = [f"the file is as it is to be, but circusd did not re-read its files: {answer['reason']}"]
    failed += [f"{name} is refused: {why}" for name, why in answer.get("refused", {}).items()]
    if opts["json"]:
        print_json({"status": "error" if failed else "ok", **answer}, opts)
    else:
        _print(answer)
    if answer.get("circusd") == "not running":
        warn("circusd does not run: it takes effect at its next start (failoverctl up)")
    for text in failed:
        warn(plain(text))
    return REFUSED if failed else 0


def _print(answer: dict[str, Any]) -> None:
    from circus_failover.pool_changes import missing_sentence
    from circus_failover.pool_shown import phases

    first, last = answer["identities"][0], answer["identities"][-1]
    agents = first if first == last else f"{first} to {last}"
    if "text" in answer:
        print(f"# {answer['file']}\n{answer['text']}", end="")
    elif "removed" in answer:
        print(f"pool {answer['pool']}{'' if answer['removed'] else ' would be'} removed: {answer['file']}")
    else:
        print(f"pool {answer['pool']}: {agents} ({answer['file']})")
    if answer.get("missing_dirs"):
        warn(missing_sentence(answer["missing_dirs"]))
    for folder in answer.get("made_dirs", ()):
        print(f"made {folder}")
    if answer["left"]:
        print(f"ended and removed: {', '.join(answer['left'])}")
    if answer.get("counts"):
        print(f"circusd has re-read its files: {phases(answer['counts'])}")


# -- what is given -----------------------------------------------------------------------------------


def _wishes(options: Given) -> Wishes:
    from circus_failover.pool_changes import Wishes

    return Wishes(
        dry_run=bool(options.get("dry-run")),
        make_dirs=bool(options.get("make-dirs")),
        by=by(),
        agree=_agreed if options.get("yes") else consent,
        progress=progress,
    )


def _agreed(question: str) -> None:
    """--yes was given."""


def _number(options: Mapping[str, Any], option: str) -> int | None:
    from circus_failover.pool_file import number

    text = str(options.get(option) or "")
    return number(f"--{option}", text) if text else None


def _template(options: Given) -> dict[str, str]:
    """Return the options of every section.

    Raises:
        ArgumentError: one is given twice, or is no KEY=VALUE.
    """
    template: dict[str, str] = {}
    pairs = [(key, str(options.get(name))) for name, key in NAMED.items() if options.get(name)]
    for word in options.get("set") or []:
        key, equals, text = str(word).partition("=")
        if not equals:
            raise ArgumentError(f"--set {word!r}: expected KEY=VALUE, like failover.idle_secs=900")
        pairs.append((key.strip(), text))
    for key, text in pairs:
        if key in template:
            raise ArgumentError(f"{key} is given twice")
        template[key] = text.strip()
    folder = template.get("working_dir", "")
    if folder and not folder.startswith(("/", "~", "$(", "((")):
        # Circus would take it from where circusd was started.
        template["working_dir"] = os.path.abspath(folder)
    return template
