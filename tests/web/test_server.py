"""What `failover-web` is told, what it waits for, and where it does not listen."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from circus_failover.web import server
from circus_failover.web.options import Endpoint, Options
from circus_failover.web.server import (
    NotYet,
    addresses,
    arguments,
    configured,
    forbidden,
    listening,
    once,
    url_of,
)

NOBODY = "ipc:///nonexistent/circusd"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FAILOVER_CONFIG", "CIRCUSCTL_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A failover.yaml in a folder of its own."""
    path = tmp_path / "fleet" / "failover.yaml"
    path.parent.mkdir()
    path.write_text(json.dumps({"state_dir": "state", "web": {"port": 8123, "hosts": ["fleet.example.org"]}}))
    return path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


# -- the command line ----------------------------------------------------------------------------------


def test_what_circus_gives_its_own_programs_is_taken(listener: socket.socket) -> None:
    its_own = ["--ssh", "x"]
    given = arguments(["--endpoint", NOBODY, "--fd", str(listener.fileno()), *its_own])
    # circusd is on this machine, wherever its clients come from.
    assert (given.endpoint, given.fd, given.ssh) == (NOBODY, listener.fileno(), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--port", "65536"], "--port 65536: expected 0 to 65535"),
        (["--port", "x"], "--port"),
        (["--host", "a b"], "expected an address"),
        (["--endpoint", "http://a"], "expected tcp://HOST:PORT or ipc://PATH"),
        (["--fd", "987"], "--fd 987: Bad file descriptor, expected a listening TCP socket"),
        (["--conf", "x"], "--conf"),
        (["x"], "x"),
        (["--endpoint", NOBODY, "--ssh", "ops@x"], "Name a failover.yaml (--config)"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2_and_says_why(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(given)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_descriptor_that_cannot_be_served_is_refused_and_not_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = socket.socket()
    quiet.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    file = (tmp_path / "f").open("w")
    wrong = ((quiet, "it does not listen"), (unix, "of another kind"), (file, "expected a listening"))
    with quiet, unix, file:
        for one, why in wrong:
            with pytest.raises(SystemExit):
                arguments(["--fd", str(one.fileno())])
            assert why in capsys.readouterr().err


def test_every_option_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(option in text for option in ("--endpoint", "--ssh", "--config", "--host", "--port", "--fd"))


# -- settings ------------------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_file_and_the_command_line_is_stronger(config: Path) -> None:
    web, state = configured(arguments(["--config", str(config), "--endpoint", NOBODY]))
    assert state.path == config.parent / "state"
    assert (web.host, web.port, web.config) == ("127.0.0.1", 8123, config)
    assert web.endpoints == (Endpoint("local", NOBODY),)
    stronger = ["--host", "localhost", "--port", "0", "--ssh", "ops@x"]
    web, _ = configured(arguments(["--config", str(config), "--endpoint", NOBODY, *stronger]))
    assert (web.host, web.port, web.endpoints[0].ssh) == ("localhost", 0, "ops@x")


def test_a_variable_names_the_file_too(config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIRCUSCTL_ENDPOINT", NOBODY)
    monkeypatch.setenv("FAILOVER_CONFIG", str(config))
    web, _ = configured(arguments([]))
    assert web.config == config and web.endpoints[0].endpoint == NOBODY
    monkeypatch.setenv("FLEET", str(config.parent))
    monkeypatch.setenv("FAILOVER_CONFIG", "$FLEET/failover.yaml")
    assert configured(arguments([]))[0].config == config
    monkeypatch.setenv("FAILOVER_CONFIG", "failover.yaml")
    monkeypatch.chdir(config.parent)
    assert configured(arguments([]))[0].config == config
    # Relative to circus.ini, which is elsewhere: circusd is asked, and here there is none.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotYet, match="does not answer"):
        configured(arguments([]))


def test_without_a_circusd_and_a_file_it_says_what_is_missing() -> None:
    with pytest.raises(NotYet, match=r"--config, FAILOVER_CONFIG"):
        configured(arguments(["--endpoint", NOBODY]))


def test_a_file_without_the_circusd_that_holds_its_state_directory_is_waited_for(config: Path) -> None:
    with pytest.raises(NotYet, match=r"no circusd holds .*/fleet/state, .*--endpoint"):
        configured(arguments(["--config", str(config)]))


def test_every_mistake_in_the_file_is_named(config: Path) -> None:
    config.write_text(json.dumps({"state_dir": "state", "web": {"port": "x", "hots": []}}))
    with pytest.raises(NotYet) as error:
        configured(arguments(["--config", str(config), "--endpoint", NOBODY]))
    assert "web.port" in str(error.value) and "web.hots" in str(error.value)
    with pytest.raises(NotYet, match="no such file|No such file"):
        configured(arguments(["--config", str(config.parent / "none.yaml"), "--endpoint", NOBODY]))


# -- listening -----------------------------------------------------------------------------------------


def test_a_port_in_use_is_something_to_wait_for(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(NotYet, match=f"127.0.0.1:{port} cannot be listened on: Address already in use"):
        listening(Options(port=port))
    with pytest.raises(NotYet, match="cannot be listened on"):
        listening(Options(host="192.0.2.1", port=0))


def test_circusds_own_socket_is_left_open_when_the_console_closes_its_copy(listener: socket.socket) -> None:
    (copy,) = listening(Options(fd=listener.fileno()))
    assert copy.getsockname() == listener.getsockname() and not copy.getblocking()
    copy.close()
    socket.create_connection(listener.getsockname()).close()


@pytest.mark.parametrize(
    ("options", "bound", "served"),
    [
        (Options(), ["127.0.0.1"], True),
        (Options(), ["127.0.0.1", "::1"], True),
        (Options(), ["0.0.0.0"], False),
        (Options(), ["127.0.0.1", "192.168.1.5"], False),
        (Options(), ["::"], False),
        (Options(proxy=True, hosts=("fleet.example.org",)), ["0.0.0.0"], False),
        (Options(allow_remote=True), ["0.0.0.0"], True),
        (Options(tls_cert=Path("c"), tls_key=Path("k")), ["0.0.0.0"], True),
    ],
)
def test_beyond_loopback_it_listens_with_tls_or_when_it_is_told_to(
    options: Options, bound: list[str], served: bool
) -> None:
    why = forbidden(options, bound)
    assert (why is None) == served
    if why is not None:
        assert all(word in why for word in ("tls_cert", "allow_remote", "ssh -L", "httpd_host"))


@pytest.mark.parametrize(
    ("options", "host", "url"),
    [
        (Options(), "127.0.0.1", "http://127.0.0.1:{}"),
        (Options(allow_remote=True), "0.0.0.0", "http://127.0.0.1:{}"),
        (Options(tls_cert=Path("c"), tls_key=Path("k")), "127.0.0.1", "https://127.0.0.1:{}"),
        (
            Options(tls_cert=Path("c"), tls_key=Path("k"), hosts=("fleet.example.org",)),
            "0.0.0.0",
            "https://fleet.example.org:{}",
        ),
        (Options(hosts=("fleet.example.org",), proxy=True), "127.0.0.1", "http://127.0.0.1:{}"),
    ],
)
def test_the_address_is_one_for_a_browser_on_this_machine(options: Options, host: str, url: str) -> None:
    with socket.create_server((host, 0)) as made:
        assert url_of(options, [made]) == url.format(made.getsockname()[1])
        assert addresses([made]) == [host]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_an_address_of_ipv6_is_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as made:
        assert url_of(Options(), [made]) == f"http://[::1]:{made.getsockname()[1]}"


# -- waiting -------------------------------------------------------------------------------------------


def test_what_is_in_the_way_is_said_once_and_again_when_it_is_another_thing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "AGAIN_SECS", 0.0)
    answers = iter([NotYet("one"), NotYet("one"), NotYet("other"), NotYet("one"), 7])

    def find() -> int:
        found = next(answers)
        if isinstance(found, NotYet):
            raise found
        return int(found)

    async def play() -> int | None:
        return await once(find, asyncio.Event())

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(play()) == 7
    assert [record.message for record in caplog.records] == ["one", "other", "one"]


def test_it_ends_while_it_waits() -> None:
    async def play() -> None:
        ended = asyncio.Event()

        def find() -> int:
            loop.call_soon_threadsafe(ended.set)
            raise NotYet("never")

        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(once(find, ended), 30) is None

    asyncio.run(play())
