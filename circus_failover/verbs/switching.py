"""`failoverctl switch`: reads its arguments, has `mass_switch` ask circusd for each agent in turn, prints.

circusd's own part of the verb is `switch_verb`, which moves one agent.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from circus.exc import ArgumentError

from circus_failover import output
from circus_failover.failure import REFUSED, Failed
from circus_failover.verbs.local_tools import by, print_json, progress, warn
from circus_failover.verbs.switch_verb import Switch

if TYPE_CHECKING:
    from circus_failover.mass_switch import Verdict, View, Wishes

ANSWER_SECS = 5.0
SETTLED_SECS = 3600.0
"""How long one agent may take; --timeout sets another bound."""
LOOK_SECS = 0.5


class SwitchAgents(Switch):
    """\
    Move agents to another account, in the same conversation
    ========================================================

    One after another: each agent is ended and its whole process tree gone, the gate is asked about the home
    of the other account, and the agent is resumed there in the same conversation; a turn that was interrupted
    is sent once more. Whatever fails leaves an agent parked and resumable on its old account, with the
    reason. An agent that is not up only changes its account: its next launch is on it.

    It may be interrupted, and the same command again goes on: who is there already stays there. After three
    in a row that failed no other one is ended.

    Command line
    ------------

    ::

        $ failoverctl switch NAME... | --pool P | --account A [--to B] [--dry-run] [--pace SECS] [--force]

    Options
    +++++++

    - <NAME>: names or globs of agents
    - <pool>: all agents of a pool
    - <account>: all agents that are on this account
    - <to>: the account they go to; with --account or --dry-run it may be left out: then the best other one
      is chosen for each
    - <dry-run>: a table of what would be done, and nothing is done
    - <pace>: seconds from one relaunch to the next (5), a fifth more or less
    - <force>: also to an account that is known to be exhausted, or is full

    Exit status: 0 all are on the other account, 3 one was refused or failed, with the reason.
    """

    name = "switch"
    msg_type = "local"
    options = [
        ("", "pool", "", "all agents of a pool"),
        ("", "account", "", "all agents that are on this account"),
        ("", "to", "", "the account they go to"),
        ("", "dry-run", False, "show what would be done, and do nothing"),
        ("", "pace", "5", "seconds from one relaunch to the next (5)"),
        ("", "force", False, "also to an account that is known to be exhausted, or is full"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Switch the agents, and return 0 when all are where they are to be."""
        from circus.util import DEFAULT_ENDPOINT_DEALER

        from circus_failover import mass_switch
        from circus_failover.circusd_client import Client

        pool, account = (str(options.get(name) or "") or None for name in ("pool", "account"))
        if sum(map(bool, (args, pool, account))) != 1:
            raise ArgumentError("switch takes either names of agents, or --pool, or --account")
        if not (options.get("to") or account or options.get("dry-run")):
            # Run again it would move those once more that are there.
            raise ArgumentError("switch needs --to ACCOUNT; with --dry-run it says where each would go")
        wishes = mass_switch.Wishes(
            to=str(options.get("to") or "") or None,
            by=by(),
            pace=_seconds(str(options.get("pace") or "5")),
            force=bool(options.get("force")),
            dry_run=bool(options.get("dry-run")),
        )
        where = opts["endpoint"] or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
        client = Client(
            endpoint=where, timeout=ANSWER_SECS, ssh_server=opts["ssh"], ssh_keyfile=opts["ssh_keyfile"]
        )
        try:
            agents = client.send_message("fleet")["agents"]
            client.timeout = (opts["bound"] or SETTLED_SECS) * 1000
            meant = mass_switch.chosen(agents, args, pool, account, partial(_accounts, client))
            if not meant and not opts["json"]:
                print(f"no agent is on account {account}: nothing to do")
                return 0
            return _carried_out(opts, meant, wishes, client)
        finally:
            client.stop()


def _carried_out(opts: dict[str, Any], agents: list[View], wishes: Wishes, client: Any) -> int:
    from circus_failover import mass_switch

    done: list[Verdict] = []
    moving = _Moving(client, len(agents), wishes)
    try:
        for verdict in mass_switch.verdicts(agents, wishes, moving.ask, moving.pause):
            done.append(verdict)
            moving.done = len(done)
            if not opts["json"] and not wishes.dry_run:
                out = sys.stdout if verdict["ok"] else sys.stderr
                print(mass_switch.line(verdict), file=out, flush=True)
    except (KeyboardInterrupt, BrokenPipeError) as error:
        left = "circusd completes the one that is under way, and the same command again goes on"
        said = f"{mass_switch.summary(done, len(agents))}; {left}"
        if isinstance(error, KeyboardInterrupt):
            warn(f"interrupted: {said}")
            raise
        # Elsewhere a reader that has seen enough (`| head`) is no failure: here agents are left behind.
        output.forget()
        raise Failed(f"its output is read no more: {said}", REFUSED) from None
    failed = [verdict for verdict in done if not verdict["ok"]]
    if opts["json"]:
        answer: dict[str, Any] = {"status": "error" if failed else "ok", "agents": done}
        if failed:
            answer["reason"] = "\n".join(map(mass_switch.line, failed))
        print_json({**answer, "dry_run": wishes.dry_run}, opts)
    elif wishes.dry_run:
        print(_table(done))
    elif len(agents) > 1:
        print(mass_switch.summary(done, len(agents)))
    if failed and (opts["json"] or wishes.dry_run):
        raise Failed("\n".join(map(mass_switch.line, failed)), REFUSED)
    if failed:
        raise Failed(mass_switch.summary(done, len(agents)), REFUSED)
    return 0


def _accounts(client: Any) -> list[str]:
    """Return the accounts that circusd knows."""
    answer = client.call({"command": "accounts", "properties": {}})
    return [str(one["name"]) for one in answer.get("accounts", ())]


class _Moving:
    """Asks circusd and pauses, and shows on a terminal what is waited for."""

    def __init__(self, client: Any, total: int, wishes: Wishes) -> None:
        self._client = client
        self._total = total
        self._wishes = wishes
        self.done = 0

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one message, and return the answer."""
        name = message["properties"]["name"]
        with contextlib.ExitStack() as shown:
            if not self._wishes.dry_run:
                say = shown.enter_context(progress())
                tell = partial(self._say, say, name)
                shown.enter_context(_phase_of(name, self._client.endpoint, tell))
            return dict(self._client.call(message))

    def pause(self, agent: View, secs: float) -> None:
        """Wait before an agent is switched."""
        until = time.monotonic() + secs
        with progress() as say:
            while (left := until - time.monotonic()) > 0:
                self._say(say, str(agent["identity"]), f"in {left:.0f} s")
                time.sleep(min(left, LOOK_SECS))

    def _say(self, say: Callable[[str], None], name: str, doing: str) -> None:
        from circus_failover.mass_switch import progress as line

        say(line(self.done, self._total, name, doing))


@contextlib.contextmanager
def _phase_of(name: str, endpoint: str, say: Callable[[str], None]) -> Iterator[None]:
    """Show, while the block runs, in which phase an agent is."""
    from circus_failover import verb_progress

    def line(agents: list[dict[str, Any]]) -> None:
        found = next((agent for agent in agents if agent["identity"] == name), None)
        if found is not None:
            say(f"{found['phase']} on {found['account'] or 'no account'}")

    say("asked")
    with verb_progress.watching(endpoint, line):
        yield


def _table(done: list[Verdict]) -> str:
    """Return what would be done, one row an agent, and why where an account was chosen."""
    from circus_failover import screen

    rows = [
        (
            verdict["identity"],
            verdict["from"] or "-",
            verdict["to"] or "-",
            verdict["state"] or verdict["phase"],
            _would(verdict),
        )
        for verdict in done
    ]
    lines = [screen.table(("AGENT", "FROM", "TO", "STATE", "VERDICT"), rows)]
    shown = set()
    for verdict in done:
        weighed = [f"{one['account']}: {one['why']}" for one in verdict["considered"] if one["account"]]
        if weighed and tuple(weighed) not in shown:
            shown.add(tuple(weighed))
            lines.append(f"accounts for {verdict['identity']}: {screen.plain('; '.join(weighed))}")
    return "\n".join(lines)


def _would(verdict: Verdict) -> str:
    """Return what would come of one agent."""
    words = {
        "switched": "ended, and resumed there",
        "next-launch": "its next launch is there",
        "already": "nothing: it is there",
        "refused": f"refused: {verdict['reason']}",
    }
    return words.get(verdict["how"], str(verdict["how"]))


def _seconds(text: str) -> float:
    try:
        secs = float(text)
    except ValueError:
        secs = math.nan
    if not 0 <= secs <= 86400:
        raise ArgumentError(f"--pace {text!r}: expected a number of seconds from 0 to 86400")
    return secs
