"""The console's process: reads its settings, opens its socket, and serves until it is told to end.

What is wrong with its surroundings (no circusd yet, a broken failover.yaml, a port in use) is said once and
waited for: circusd would start a process that gives up anew every second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from circus.exc import CallError
from circus.util import DEFAULT_ENDPOINT_DEALER
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from circus_failover import __version__, circusd_site, settings, state_dir
from circus_failover.problems import SettingsError
from circus_failover.state_dir import StateDir
from circus_failover.web import api, live, metrics_page, options, pages, sign_in
from circus_failover.web.access import Access
from circus_failover.web.audit import Audit
from circus_failover.web.handler import MOST_BODY_BYTES, Console
from circus_failover.web.hosts import Hosts
from circus_failover.web.options import OWN, Endpoint, Options
from circus_failover.web.origin import beyond_loopback
from circus_failover.web.terminal import Terminals
from circus_failover.web.tokens import TokenFolder, TokensUnusable

AGAIN_SECS = 2.0
"""How often what is waited for is looked at again."""
LOOK_SECS = 2.0
"""How often it is looked whether the tokens are others."""
CLOSE_SECS = 3.0
"""How long connections may take to end when the console does."""
CONNECTION_SECS = 120.0
"""How long a connection may be idle, or take to send a body."""
_PR_SET_PDEATHSIG = 1
T = TypeVar("T")

logger = logging.getLogger(__name__)


class NotYet(Exception):
    """Something that is needed is not there; the text says what, and what to do."""


# -- what it is told -------------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the process with 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="failover-web",
        allow_abbrev=False,
        description="The web console of circus-failover. `failoverctl web` opens it, signed in.",
        epilog="Everything else is in failover.yaml, under `web`. circusd starts it with `httpd = True` in "
        "[circus], or as a watcher with `cmd = failover-web`.",
    )
    parser.add_argument(
        "--endpoint", help="circusd's endpoint (CIRCUSCTL_ENDPOINT, or whose state directory it is)"
    )
    parser.add_argument("--ssh", metavar="HOST", help="the machine to reach circusd through")
    parser.add_argument("--config", metavar="FILE", help="failover.yaml (FAILOVER_CONFIG, or circusd's own)")
    parser.add_argument("--host", help=f"the address to listen on ({options.HOST})")
    parser.add_argument("--port", type=int, help=f"the port ({options.PORT}; 0: any that is free)")
    parser.add_argument("--fd", type=int, help="a listening socket that circusd has opened")
    parser.add_argument("--version", action="version", version=f"failover-web {__version__}")
    found = parser.parse_args(given)
    if found.port is not None and not 0 <= found.port <= 65535:
        parser.error(f"--port {found.port}: expected 0 to 65535")
    if found.host is not None and not options.is_host(found.host):
        parser.error(f"--host {found.host!r}: expected an address or a name of this machine")
    if found.endpoint is not None and not options.is_endpoint(found.endpoint):
        parser.error(f"--endpoint {found.endpoint!r}: expected tcp://HOST:PORT or ipc://PATH")
    if found.fd is not None:
        # circusd names its `ssh_server` here, which is for clients elsewhere; it is on this machine itself.
        found.ssh = None
        why = _no_listener(found.fd)
        if why is not None:
            parser.error(f"--fd {found.fd}: {why}, expected a listening TCP socket")
    if found.ssh is not None and not (found.config or os.environ.get("FAILOVER_CONFIG")):
        parser.error(
            "--ssh: whose state directory holds the console's tokens? Name a failover.yaml (--config)"
        )
    return found


def _no_listener(fd: int) -> str | None:
    """Return why a descriptor cannot be served, or None."""
    try:
        inherited = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        return error.strerror or str(error)
    with inherited:
        if inherited.family not in (socket.AF_INET, socket.AF_INET6) or inherited.type != socket.SOCK_STREAM:
            return "it is a socket of another kind"
        listens = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return None if listens else "it does not listen"


def configured(given: argparse.Namespace) -> tuple[Options, StateDir]:
    """Return how this console is to run, and whose state directory is its own.

    Raises:
        NotYet: that cannot be known now.
    """
    endpoint = given.endpoint or os.environ.get("CIRCUSCTL_ENDPOINT")
    path = _config_named(given, endpoint)
    if path is None:
        endpoint = endpoint or str(DEFAULT_ENDPOINT_DEALER)
        path = _config_of(endpoint)
    try:
        found = settings.load(path)
    except SettingsError as error:
        raise NotYet("\n".join(str(problem) for problem in error.problems)) from error
    state = StateDir(found.state_dir)
    if endpoint is None:
        endpoint = _endpoint_of(state)
    own = Endpoint(OWN, endpoint, given.ssh)
    web = replace(found.web, endpoints=(own, *found.web.endpoints), config=path, fd=given.fd)
    if given.host is not None:
        web = replace(web, host=given.host)
    if given.port is not None:
        web = replace(web, port=given.port)
    return web, state


def _config_named(given: argparse.Namespace, endpoint: str | None) -> Path | None:
    """Return the failover.yaml that this process was told; None: circusd is asked."""
    if given.config:
        return Path(given.config).expanduser().absolute()
    variable = os.environ.get("FAILOVER_CONFIG", "").strip()
    if not variable:
        return None
    path = Path(os.path.expandvars(os.path.expanduser(variable)))
    # For agents it is relative to circus.ini, which this process does not know; circusd does.
    return path.absolute() if path.is_absolute() or path.is_file() or endpoint is None else None


def _config_of(endpoint: str) -> Path:
    try:
        if not circusd_site.listens(endpoint):
            raise CallError("nothing listens there")
        answer = circusd_site.ask(endpoint, "fleet", 5.0)
    except CallError as error:
        raise NotYet(
            f"circusd at {endpoint} does not answer ({error}), so it is not known whose console this is: "
            "start it, or name its failover.yaml (--config, FAILOVER_CONFIG)"
        ) from error
    path = answer.get("circusd", {}).get("config")
    if not path:
        why = answer.get("reason") or "it has no agents"
        raise NotYet(f"the circusd at {endpoint} names no failover.yaml ({why}): name one with --config")
    return Path(path)


def _endpoint_of(state: StateDir) -> str:
    found = state_dir.holder(state)
    if found is None:
        raise NotYet(
            f"no circusd holds {state.path}, so its endpoint is not known: start it, or name it (--endpoint)"
        )
    return found.endpoint


# -- where it listens ------------------------------------------------------------------------------------


def listening(web: Options) -> list[socket.socket]:
    """Open the sockets, or take the one that circusd has opened.

    Raises:
        NotYet: the address cannot be listened on now.
    """
    if web.fd is not None:
        # Circus binds it and listens (circus 0.19, sockets.py); its descriptor is inherited as it is.
        inherited = socket.socket(fileno=os.dup(web.fd))
        inherited.setblocking(False)
        return [inherited]
    try:
        return bind_sockets(web.port, address=web.host)
    except OSError as error:
        raise NotYet(f"{web.host}:{web.port} cannot be listened on: {error.strerror or error}") from error


def addresses(sockets: Sequence[socket.socket]) -> list[str]:
    """Return the addresses that are listened on."""
    return [str(one.getsockname()[0]) for one in sockets]


def forbidden(web: Options, bound: Sequence[str]) -> str | None:
    """Return why these addresses must not be served, or None."""
    beyond = beyond_loopback(bound)
    if not beyond or web.tls or web.allow_remote:
        return None
    return (
        f"{', '.join(beyond)}: others than this machine could listen to what the console says, tokens "
        "included, so nothing is served. Listen on 127.0.0.1 (httpd_host, or `host` under `web` in "
        "failover.yaml) behind a reverse proxy or ssh -L, give it tls_cert and tls_key, or say "
        "`allow_remote: true`; then start it again"
    )


def url_of(web: Options, sockets: Sequence[socket.socket]) -> str:
    """Return the address for a browser on this machine."""
    name = sockets[0].getsockname()
    host, port = str(name[0]), int(name[1])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    if web.tls and web.hosts:
        # A certificate is for a name.
        host = web.hosts[0]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if web.tls else 'http'}://{shown}:{port}"


# -- running ---------------------------------------------------------------------------------------------


async def once(find: Callable[[], T], ended: asyncio.Event) -> T | None:
    """Return what is found, as soon as it is; what is in the way is said when it is another thing.

    Args:
        find: run in a thread; raises NotYet.
        ended: set when the console is to end; then None is returned.
    """
    said = ""
    while not ended.is_set():
        try:
            return await asyncio.to_thread(find)
        except NotYet as error:
            if str(error) != said:
                said = str(error)
                logger.error("%s", said)
        await _pause(AGAIN_SECS, ended)
    return None


async def _pause(secs: float, ended: asyncio.Event) -> None:
    waiting = asyncio.ensure_future(ended.wait())
    await asyncio.wait([waiting], timeout=secs)
    waiting.cancel()


async def run(given: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    found = await once(lambda: configured(given), ended)
    if found is None:
        return
    web, state = found
    holder = state_dir.holder(state)
    if holder is not None and holder.process.pid == os.getppid():
        end_with_circusd()
    # Before it listens: who connects meanwhile would wait without a word.
    tls = await once(lambda: _tls(web), ended) if web.tls else None
    sockets = await once(lambda: listening(web), ended)
    if sockets is None:
        return
    bound = addresses(sockets)
    why_not = forbidden(web, bound)
    if why_not is not None:
        logger.error("%s", why_not)
        await _turn_away(sockets, ended)
        return
    await _serve(web, state, sockets, tls, ended)


def end_with_circusd() -> None:
    """Have the kernel end this process as soon as its parent, circusd, is gone, however that comes.

    It has circusd's own socket (and every other one, circus 0.19): with that held here the next circusd could
    not bind it, and would not start. Killed outright: it has nothing to finish, and the next one is quick.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    # prctl(2): it holds for the parent's thread that forked, of circusd its only one that starts processes.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


async def _turn_away(sockets: Sequence[socket.socket], ended: asyncio.Event) -> None:
    """Close every connection at once: circusd holds the socket open, whoever serves it."""

    def close(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.accept()[0].close()

    loop = asyncio.get_running_loop()
    for one in sockets:
        loop.add_reader(one, close, one)
    await ended.wait()
    for one in sockets:
        loop.remove_reader(one)
        one.close()


def _tls(web: Options) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(str(web.tls_cert), str(web.tls_key))
    except OSError as error:  # ssl.SSLError is one
        raise NotYet(
            f"web.tls_cert {web.tls_cert} and web.tls_key {web.tls_key} cannot be used: {error}"
        ) from error
    return context


async def _serve(
    web: Options,
    state: StateDir,
    sockets: list[socket.socket],
    tls: ssl.SSLContext | None,
    ended: asyncio.Event,
) -> None:
    folder, access, audit, terminals = TokenFolder(state), Access(web), Audit(), Terminals()
    access.origin.bound = tuple(addresses(sockets))
    audit.use(state.audit_log)
    hosts = Hosts(web.endpoints)
    await hosts.start()
    console = Console(web, hosts, access, audit, terminals, __version__)
    server = HTTPServer(
        application(console),
        ssl_options=tls,
        # What is larger ends the connection; up to here a sentence says what is allowed.
        max_body_size=2 * MOST_BODY_BYTES,
        idle_connection_timeout=CONNECTION_SECS,
        body_timeout=CONNECTION_SECS,
    )
    server.add_sockets(sockets)
    url = url_of(web, sockets)
    looking = asyncio.ensure_future(_look_for_ever(access, folder, url))
    logger.info("the console is at %s; `failoverctl web` opens it", url)
    try:
        await ended.wait()
    finally:
        looking.cancel()
        server.stop()
        live.close_pages()
        await asyncio.wait([asyncio.ensure_future(server.close_all_connections())], timeout=CLOSE_SECS)
        await terminals.close()
        await hosts.close()
        folder.withdraw()


def application(console: Console) -> Application:
    """Return everything that is served."""
    routes = [*sign_in.routes(), *live.routes(), *api.routes(), *metrics_page.routes(), *pages.routes()]
    return Application(
        routes, console=console, log_function=_log_request, websocket_ping_interval=live.PING_SECS
    )


def _log_request(handler: Any) -> None:
    """Only what failed in the console itself: audit.log says who asked for what."""
    if handler.get_status() >= 500 and handler.get_status() != 503:
        logger.warning("%s %s: %s", handler.request.method, handler.request.path, handler.get_status())


async def _look_for_ever(access: Access, folder: TokenFolder, url: str) -> None:
    """Take the tokens once they can be used, notice new ones, and have it known where the console is."""
    said = ""
    while True:
        trouble = ""
        try:
            access.look()
            if not access.usable:
                access.use(folder)
            # Another console of this fleet may have said where it is, and ended since.
            if folder.running() is None:
                folder.announce(url)
        except (TokensUnusable, OSError) as error:
            trouble = f"nobody can sign in: {error}"
        except Exception:
            trouble = "the tokens cannot be looked at"
            logger.exception("%s", trouble)
        if trouble and trouble != said:
            logger.error("%s", trouble)
        elif said and not trouble:
            logger.info("the tokens can be used again")
        said = trouble
        await asyncio.sleep(LOOK_SECS)


def main(given: Sequence[str] | None = None) -> None:
    """Run the console (`failover-web`, and what `httpd = True` starts)."""
    told = arguments(given)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, force=True, stream=sys.stderr, format="%(asctime)s failover-web: %(message)s"
    )
    # A connection that broke is no news; what fails in a handler is logged by the handler.
    logging.getLogger("tornado").setLevel(logging.ERROR)
    os.umask(0o077)
    if told.fd is not None:
        end_with_circusd()
    asyncio.run(run(told))
    sys.exit(0)
