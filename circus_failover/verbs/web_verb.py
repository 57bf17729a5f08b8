"""`failoverctl web`: the address of the console, its token once, and the signed-in page in a browser."""

from __future__ import annotations

import html
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from circus.commands.base import Command

from circus_failover.failure import REFUSED, UNREACHABLE, Failed
from circus_failover.verbs.local_tools import at_most_one, print_json, warn

_FORWARD = """\
<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>circus-failover</title>
<p><a href="{url}">The console</a>; this leads there once, within a minute.</p>
"""


class Web(Command):  # type: ignore[misc]
    """\
    Open the web console, signed in
    ===============================

    Prints the address of the console that runs for this fleet, and its token the first time that it is asked
    for, never again: it is in the file that is named. Opens a browser by a file of your own that leads to the
    page with a code that works once, within a minute, so that no secret is in `ps`; without a screen the link
    with that code is printed. Needs no circusd, but a console: `httpd = True` in [circus] of circus.ini, a
    watcher with `cmd = failover-web`, or `failover-web` by hand.

    Command line
    ------------

    ::

        $ failoverctl web [circus.ini] [--read-only] [--no-open]
        $ failoverctl web [circus.ini] --new-tokens

    Options
    +++++++

    - <circus.ini>: which one; else, without --endpoint, circus.ini in this folder; else whoever answers on
      --endpoint or CIRCUSCTL_ENDPOINT
    - <read-only>: as somebody who may only look
    - <no-open>: only print, the link with the code too
    - <new-tokens>: make new tokens: everybody is signed out, and scripts need the new ones

    Exit status: 0 done, 1 no console runs, 2 usage, 3 its tokens cannot be used.
    """

    name = "web"
    msg_type = "local"
    options = [
        ("", "read-only", False, "as somebody who may only look"),
        ("", "no-open", False, "only print"),
        ("", "new-tokens", False, "make new tokens: everybody is signed out"),
    ]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Print where the console is, and open it."""
        given = at_most_one(self.name, args)
        # Not at the top: every verb of failoverctl pays for what is imported there.
        from circus_failover.verbs.canary_verbs import place
        from circus_failover.web.access import new_code
        from circus_failover.web.tokens import TokenFolder, TokensUnusable
        from circus_failover.words import Role

        folder = TokenFolder(place(given, opts).state)
        role = Role.VIEWER if options.get("read-only") else Role.OPERATOR
        try:
            if options.get("new-tokens"):
                return self._renew(opts, folder)
            folder.check()
            running = folder.running()
            if running is None:
                raise Failed(
                    f"no console runs for {folder.path.parent}: put `httpd = True` under [circus] of "
                    "circus.ini, or a watcher with `cmd = failover-web`, or run failover-web",
                    UNREACHABLE,
                )
            tokens = folder.read()
            token = tokens.viewer if role is Role.VIEWER else tokens.operator
            code = new_code(tokens, role)
            link = f"{running.url}/sign-in#code={quote(code)}"
            first = folder.first_shown(role)
            forward = None if options.get("no-open") else _opened(folder, link)
        except TokensUnusable as error:
            raise Failed(str(error), REFUSED) from error
        file = folder.path / ("viewer-token" if role is Role.VIEWER else "token")
        if opts["json"]:
            answer = {"status": "ok", "url": running.url, "role": str(role), "pid": running.process.pid}
            print_json(
                {
                    **answer,
                    "token": token if first else None,
                    "token_file": str(file),
                    "link": link if forward is None else None,
                    "opened": forward is not None,
                },
                opts,
            )
            return 0
        print(f"{running.url} ({'read-only' if role is Role.VIEWER else 'operator'})")
        if first:
            print(f"token: {token}\nIt is shown this once, and is in {file}.")
        if forward is None:
            print(f"signed in, once, within a minute:\n{link}")
        else:
            print("opened in your browser, signed in (nothing there? failoverctl web --no-open)")
        return 0

    def _renew(self, opts: dict[str, Any], folder: Any) -> int:
        folder.prepare()
        folder.renew()
        if opts["json"]:
            print_json({"status": "ok", "renewed": True}, opts)
        else:
            print("the tokens are new, and everybody is signed out: `failoverctl web` shows them once")
        return 0


def _opened(folder: Any, link: str) -> Path | None:
    """Open a browser at the link, and return the file that leads there; None where there is no screen.

    The link itself would be an argument of the browser's, which everybody on this machine can read.
    """
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not screen:
        return None
    try:
        path: Path = folder.write_forward(_FORWARD.format(url=html.escape(link, quote=True)))
        if webbrowser.open(path.as_uri()):
            return path
    except (OSError, webbrowser.Error) as error:
        warn(f"no browser could be opened: {error}")
    folder.remove_forward()
    return None
