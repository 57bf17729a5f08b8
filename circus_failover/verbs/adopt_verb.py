"""`failoverctl adopt`: sessions that run already become agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, CallError

from circus_failover.failure import FOUND, REFUSED, Failed
from circus_failover.verbs.local_tools import at_most_one, consent, print_json, progress, warn

if TYPE_CHECKING:
    from circus_failover.adopting import Adoption, LeftAlone


class Adopt(Command):  # type: ignore[misc]
    """\
    Make agents of tmux sessions that run a client already
    ======================================================

    Finds the sessions in which Claude Code or Codex runs, writes a watcher for each, and lets circusd take
    them in as they are: nothing is started, ended or typed. What would be written is shown first; without
    --yes it asks. A session that cannot be taken in is named, with the reason.

    Command line
    ------------

    ::

        $ failoverctl adopt [circus.ini] [--socket PATH] [--session NAME] [--name IDENTITY]
        $ failoverctl adopt --yes
        $ failoverctl --json adopt --dry-run

    Options
    +++++++

    - <circus.ini>: which one; else circus.ini in this folder
    - <socket>: of the tmux server to look at; else all of this user's usual ones (`tmux -L`)
    - <session>: only the session of this name
    - <name>: the agent's identity; else made from the session's name
    - <yes>: do it without asking
    - <dry-run>: show what would be written, and write nothing
    """

    name = "adopt"
    msg_type = "local"
    options = [
        ("", "socket", "", "the tmux server to look at"),
        ("", "session", "", "only the session of this name"),
        ("", "name", "", "the agent's identity"),
        ("", "yes", False, "do it without asking"),
        ("", "dry-run", False, "show what would be written, and write nothing"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Adopt; return 0 when every session that could be taken in was."""
        given = at_most_one(self.name, args)
        from circus_failover import adopting, agent_settings, client_sessions
        from circus_failover.circusd_site import existing_ini, site_of
        from circus_failover.problems import SettingsError
        from circus_failover.settings import load

        identity = str(options.get("name") or "")
        if identity and not agent_settings.IDENTITY.fullmatch(identity):
            raise ArgumentError(
                f"--name {identity!r}: an identity: 1 to 63 of a-z, 0-9 and '-', the first not '-'"
            )
        ini = existing_ini(given)
        try:
            fleet, settings = adopting.fleet_of(ini)
        except SettingsError as error:
            problems = "\n".join(f"  {problem}" for problem in error.problems)
            raise Failed(f"nothing was adopted, because of\n{problems}", FOUND) from error
        socket = str(options.get("socket") or "")
        sockets = [Path(socket).absolute()] if socket else client_sessions.usual_sockets()
        trouble: list[str] = []
        found = list(client_sessions.find(sockets, trouble))
        if wanted := str(options.get("session") or ""):
            found = [session for session in found if session.session == wanted]
        planned = adopting.plan(
            found, load(settings), *adopting.taken(fleet, load(settings)), identity or None
        )
        adoptions = [one for one in planned if isinstance(one, adopting.Adoption)]
        if identity and len(adoptions) > 1:
            raise ArgumentError(
                f"--name {identity}: {len(adoptions)} sessions were found; add --session NAME"
            )
        alone = [one for one in planned if isinstance(one, adopting.LeftAlone)]
        if not opts["json"]:
            self._show(ini, adoptions, alone, trouble)
        if not adoptions or options.get("dry-run") or options.get("dry_run"):
            return self._answer(opts, ini, adoptions, alone, trouble, {}, done=False)
        if not options.get("yes"):
            consent(f"Write {'this section' if len(adoptions) == 1 else 'these sections'}?")
        files = adopting.write(ini, adoptions)
        failed: dict[str, str] = {}
        site = site_of(ini)
        if not adopting.runs(site):
            warn("circusd does not run: it takes them in at its next start (failoverctl up)")
        else:
            with progress() as say:
                try:
                    failed = adopting.take_in(site, adoptions, say)
                except CallError as error:
                    raise Failed(f"the sections are written ({ini}), and then: {error}", FOUND) from error
        if not opts["json"]:
            for adoption in adoptions:
                state = failed.get(adoption.identity) or "taken in, as it was"
                print(f"{adoption.identity}: {state} ({files[adoption.identity]})")
        return self._answer(opts, ini, adoptions, alone, trouble, failed, done=True)

    def _show(self, ini: Path, adoptions: list[Adoption], alone: list[LeftAlone], trouble: list[str]) -> None:
        from circus_failover.adopting import place
        from circus_failover.screen import plain

        for text in trouble:
            warn(f"not looked at: {plain(text)}")
        for left in alone:
            found = left.found
            print(f"left alone  {plain(found.session)} on {plain(found.socket)}: {plain(left.reason)}")
        for adoption in adoptions:
            found = adoption.found
            print(f"adopt       {found.session} on {found.socket}: {found.runtime}, pid {found.process.pid}")
            if adoption.left_out:
                words = " ".join(map(plain, adoption.left_out))
                print(f"            its next launch is without: {words}")
            print(f"\n# {place(ini, adoption.identity)}\n{adoption.section()}")
        if not adoptions:
            print("no session with a client that could be adopted")

    def _answer(
        self,
        opts: dict[str, Any],
        ini: Path,
        adoptions: list[Adoption],
        alone: list[LeftAlone],
        trouble: list[str],
        failed: dict[str, str],
        done: bool,
    ) -> int:
        if opts["json"]:
            print_json(
                {
                    "status": "error" if failed else "ok",
                    "ini": str(ini),
                    "adopted": [
                        {
                            "identity": one.identity,
                            "socket": str(one.found.socket),
                            "session": one.found.session,
                            "runtime": one.found.runtime,
                            "account": one.account,
                            "pid": one.found.process.pid,
                            "section": one.section(),
                            "left_out": list(one.left_out),
                            "done": done and one.identity not in failed,
                            "reason": failed.get(one.identity),
                        }
                        for one in adoptions
                    ],
                    "left_alone": [
                        {
                            "socket": str(one.found.socket),
                            "session": one.found.session,
                            "runtime": one.found.runtime,
                            "pid": one.found.process.pid,
                            "reason": one.reason,
                        }
                        for one in alone
                    ],
                    "trouble": trouble,
                },
                opts,
            )
        if failed:
            warn("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
            return REFUSED
        return 0
