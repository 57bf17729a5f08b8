"""The console as circusd starts it: signed in by a code, a verb by a page, no secret anywhere, no storm."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import signal
import socket
import subprocess
from typing import Any

import requests
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests import proc
from tests.live.fleet import BIN, Fleet, alive, parse_logfmt, wait_for
from tests.ports import free_port

BROWSER = """\
#!/bin/sh
# Stands in for a browser: keeps how it was called, and what it was to show.
tr '\\0' '\\n' < /proc/$$/cmdline > "$FAILOVER_TEST_FLEET/browser.cmdline"
cp -p "${1#file://}" "$FAILOVER_TEST_FLEET/browser.html"
"""


def ask(method: str, url: str, **given: Any) -> requests.Response:
    """Send a request without this machine's proxies."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, timeout=30, **given)


def console_pid(fleet: Fleet) -> int:
    (pid,) = fleet.call("list", name="circushttpd")["pids"]
    return int(pid)


def command_lines(fleet: Fleet) -> bytes:
    """Return what `ps` shows of every process of the fleet, and what each was given as its environment."""
    pids = [process.pid for process in fleet.processes()]
    return b"".join(proc.command_line(pid) + proc.environment(pid) for pid in pids)


def test_a_code_signs_a_page_in_its_verbs_are_written_down_and_no_secret_is_anywhere(fleet: Fleet) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    fleet.circus = {"httpd": "True", "httpd_port": str(port)}
    fleet.agent("bob")
    browser = fleet.folder / "browser"
    browser.write_text(BROWSER)
    browser.chmod(0o700)
    fleet.environment.update(BROWSER=str(browser), DISPLAY=":99")
    fleet.write()
    assert (early := fleet.ctl("web", str(fleet.ini))).code == 1 and "no console runs" in early.err
    fleet.start()
    web = fleet.state / "web"
    wait_for("the console says where it is", (web / "console.json").exists)

    # Opened in a browser: what leads there is a file of this user's, not an argument.
    opened = fleet.ctl("web", str(fleet.ini))
    assert opened.code == 0 and "opened in your browser" in opened.out
    token = (web / "token").read_text().strip()
    assert f"{url} (operator)\n" in opened.out and f"token: {token}\n" in opened.out
    page = fleet.folder / "browser.html"
    assert page.stat().st_mode & 0o777 == 0o600
    (link,) = set(re.findall(r'href="([^"]+)"', page.read_text()))
    link = html.unescape(link)
    assert link.startswith(f"{url}/sign-in#code=")
    code = requests.utils.unquote(link.partition("#code=")[2])
    called = (fleet.folder / "browser.cmdline").read_text()
    assert "open.html" in called and "code" not in called and token not in called
    signed = ask("POST", f"{url}/api/v1/session", json={"code": code}, headers={"Origin": url})
    assert signed.status_code == 200 and signed.json()["role"] == "operator"
    assert not (web / "open.html").exists()
    assert (
        ask("POST", f"{url}/api/v1/session", json={"code": code}, headers={"Origin": url}).status_code == 401
    )

    # The token is printed once; scripts learn the same as JSON.
    again = fleet.ctl("--json", "web", "--no-open").json()
    assert again["token"] is None and again["token_file"] == str(web / "token") and not again["opened"]
    assert (again["url"], again["role"], again["pid"]) == (url, "operator", console_pid(fleet))
    viewer = fleet.ctl("web", "--read-only", "--no-open")
    assert (web / "viewer-token").read_text().strip() in viewer.out and "(read-only)" in viewer.out
    assert token not in viewer.out

    # A verb by the page.
    fleet.await_up("bob")
    cookie = "; ".join(f"{name}={value}" for name, value in signed.cookies.items())
    headers = {"Cookie": cookie, "Origin": url, "X-CSRF-Token": signed.json()["csrf"]}
    answer = ask(
        "POST", f"{url}/api/v1/hosts/local/verbs/park", json={"name": "bob", "waiting": True}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    fleet.await_phase("bob", "parked")
    (line,) = (
        one
        for one in map(parse_logfmt, (fleet.state / "audit.log").read_text().splitlines())
        if "verb" in one
    )
    assert (line["who"], line["verb"], line["outcome"], line["name"]) == (
        "web:operator@127.0.0.1",
        "park",
        "ok",
        "bob",
    )
    assert "web:operator@127.0.0.1" in (fleet.state / "lifecycle.log").read_text()

    # Every file is its owner's alone, and no secret is in any other one, in `ps`, or in what circusd answers.
    assert web.stat().st_mode & 0o777 == 0o700
    assert {
        path.name: path.stat().st_mode & 0o777 for path in web.iterdir() if path.stat().st_mode & 0o077
    } == {}
    secrets = [(web / name).read_text().strip() for name in ("token", "viewer-token", "cookie-secret")]
    secrets += [code, cookie.partition("=")[2], signed.json()["csrf"]]
    said = (
        command_lines(fleet) + json.dumps([fleet.call("fleet"), fleet.call("explain", name="bob")]).encode()
    )
    said += json.dumps([fleet.call("options", name="circushttpd"), fleet.call("dstats")]).encode()
    for path in fleet.folder.rglob("*"):
        if path.is_file() and web not in path.parents and path != page:
            with contextlib.suppress(FileNotFoundError):  # a file that was written beside its place just now
                said += path.read_bytes()
    assert not [secret for secret in secrets if secret.encode() in said]

    # New tokens sign everybody out, also a page that is open; the end of circusd closes it.
    opening = asyncio.run(_signed_out_and_ended(fleet, url, headers))
    assert opening == ["hello", "signed-out", "closed", "closed"]


async def _signed_out_and_ended(fleet: Fleet, url: str, headers: dict[str, str]) -> list[str]:
    """Return what an open page hears when tokens are renewed, and the next one when circusd is ended."""
    seen = []
    address = url.replace("http:", "ws:") + "/api/v1/live"
    given = {name: headers[name] for name in ("Cookie", "Origin")}
    protocols = ["failover", f"csrf.{headers['X-CSRF-Token']}"]
    page = await websocket_connect(HTTPRequest(address, headers=given), subprotocols=protocols)
    seen.append(await _heard(page, "hello"))
    renewed = await asyncio.to_thread(fleet.ctl, "web", "--new-tokens")
    assert renewed.code == 0
    seen += [await _heard(page, "signed-out"), await _heard(page, "")]
    token = (fleet.state / "web" / "token").read_text().strip()
    script = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"Bearer {token}"}))
    await _heard(script, "hello")
    pid = console_pid(fleet)
    ending = asyncio.to_thread(fleet.end)
    # One that waited for its pages would be killed by Circus after 30 s, which is past the bound here.
    ended, closed = await asyncio.gather(ending, _heard(script, ""))
    assert ended == 0 and not alive(pid)
    # Circus has tracebacks of its own when it is ended in the middle of a look at its watchers (0.19).
    assert not re.search(r'File ".*/circus_failover/', fleet.log.read_text())
    return [*seen, closed]


async def _heard(page: WebSocketClientConnection, wanted: str) -> str:
    """Read until a message of this type comes, or the page is closed; return which."""
    while True:
        message = await asyncio.wait_for(page.read_message(), 25)
        if message is None:
            return "closed"
        if wanted and json.loads(message)["type"] == wanted:
            return wanted


def test_what_is_wrong_is_said_once_and_waited_for_and_strangers_are_turned_away(fleet: Fleet) -> None:
    port = free_port()
    fleet.circus = {"httpd": "True", "httpd_port": str(port), "httpd_host": "0.0.0.0"}
    fleet.agent("bob", autostart="False")
    fleet.start()

    # A console by hand, with a mistake in its settings, and then with a port that somebody has.
    holder = socket.create_server(("127.0.0.1", 0))
    taken = holder.getsockname()[1]
    config = fleet.folder / "other.yaml"
    config.write_text(json.dumps({"state_dir": "state", "web": {"port": "x", "hots": []}}))
    log = fleet.folder / "by-hand.log"
    with log.open("wb") as file:
        console = subprocess.Popen(
            [BIN / "failover-web", "--config", "other.yaml"],
            env={name: text for name, text in fleet.environment.items() if name != "CIRCUSCTL_ENDPOINT"},
            cwd=fleet.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        # circusd's own socket lies beyond loopback, without TLS: whoever connects is turned away.
        wait_for("the reason is said", lambda: "nothing is served" in fleet.log.read_text())
        pid = console_pid(fleet)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), 10) as stranger:
                assert stranger.recv(100) == b""
        assert fleet.ctl("web", str(fleet.ini)).code == 1

        wait_for(
            "the mistakes are named", lambda: "web.hots" in log.read_text() and "web.port" in log.read_text()
        )
        mended = config.with_suffix(".new")
        mended.write_text(json.dumps({"state_dir": "state", "web": {"port": taken}}))
        mended.rename(config)  # half of it would be read as other settings
        wait_for("the port is named", lambda: f"127.0.0.1:{taken} cannot be listened on" in log.read_text())
        holder.close()
        health = f"http://127.0.0.1:{taken}/healthz"
        wait_for("it serves", lambda: _answers(health) and (fleet.state / "web" / "console.json").exists())
        text = log.read_text()
        assert text.count("web.hots") == text.count("cannot be listened on") == 1
        console.send_signal(signal.SIGTERM)
        assert console.wait(20) == 0
        assert not (fleet.state / "web" / "console.json").exists()
        assert "Traceback" not in log.read_text()
    finally:
        holder.close()
        if console.poll() is None:
            console.kill()
        console.wait()

    # Meanwhile circusd has started it once. It ends with its circusd, however that ends: it has circusd's
    # socket, and the next circusd could not bind that.
    assert console_pid(fleet) == pid and alive(pid)
    assert fleet.log.read_text().count("nothing is served") == 1
    fleet.end(signal.SIGKILL)
    wait_for("the console has ended", lambda: not alive(pid))
    fleet.start()
    assert alive(console_pid(fleet))


def _answers(url: str) -> bool:
    try:
        return ask("GET", url).ok
    except requests.ConnectionError:
        return False
