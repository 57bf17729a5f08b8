"""What a test with real clients gets: clients, mock, account homes, and an end of all it has started."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import accounts, install
from tests.clients.accounts import ClaudeHome, CodexHome, Home
from tests.clients.client import Client, Start, end_marked
from tests.clients.install import Clients
from tests.clients.mock_api import Mock
from tests.clients.network import Network
from tests.live.fleet import remove

WANTED = "FAILOVER_CLIENTS"
TEST_SECS = 300
"""A client takes a second of computing to start: on a loaded machine these tests take longer than others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests here their own time limit."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECS))


def obtain(wanted: str) -> Clients:
    """Return the real clients; end the test where they are not there.

    Args:
        wanted: what FAILOVER_CLIENTS says: without them the test fails (`require`) or is skipped; with `skip`
            it is skipped also where they are.
    """
    if wanted not in ("", "require", "skip"):
        pytest.fail(f"{WANTED}={wanted}: expected require, skip, or nothing")
    if wanted == "skip":
        pytest.skip(f"no real clients: {WANTED}=skip")
    try:
        return install.ensure()
    except install.NotInstalled as error:
        if wanted == "require":
            pytest.fail(f"no real clients, and {WANTED}=require: {error}", pytrace=False)
        pytest.skip(f"no real clients: {error}")


@pytest.fixture(scope="session")
def clients() -> Clients:
    """The real clients."""
    return obtain(os.environ.get(WANTED, ""))


@pytest.fixture(scope="session")
def network(clients: Clients) -> Iterator[Network]:
    """Where clients run: nothing but loopback where that can be made sure."""
    with Network() as made:
        yield made


@pytest.fixture(scope="session")
def server(network: Network) -> Iterator[Mock]:
    """The mock, once a run; tests use `mock`."""
    assert network.listener is not None
    made = Mock(network.listener)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets; whatever carries it as its mark is ended."""
    made = Path(tempfile.mkdtemp(prefix="cf-"))
    try:
        yield made
    finally:
        end_marked(str(made))
        remove(made)


@pytest.fixture
def mock(server: Mock, folder: Path) -> Iterator[Mock]:
    """The mock, with nothing set and nothing asked."""
    server.reset()
    yield server
    server.reset()


@pytest.fixture
def work(folder: Path) -> Path:
    """The working directory that new homes trust."""
    made = folder / "work"
    made.mkdir()
    return made


@pytest.fixture
def claude_home(folder: Path, work: Path, mock: Mock) -> Callable[..., ClaudeHome]:
    """Make a home for Claude Code, by name; options as for `make_claude_home`.

    With `shared=True` its conversations are in a root that all such homes of the test link to.
    """

    def make(name: str, *, shared: bool = False, **options: Any) -> ClaudeHome:
        options.setdefault("trusted", [work])
        made = accounts.make_claude_home(folder / f"claude-{name}", name, mock.url, **options)
        if shared:
            made.link(folder / "shared", accounts.CLAUDE_SHARED)
        return made

    return make


@pytest.fixture
def codex_home(folder: Path, work: Path, mock: Mock) -> Callable[..., CodexHome]:
    """Make a home for Codex, by name; options as for `make_codex_home`, and `shared` as for Claude Code."""

    def make(name: str, *, shared: bool = False, **options: Any) -> CodexHome:
        options.setdefault("trusted", [work])
        made = accounts.make_codex_home(folder / f"codex-{name}", name, mock.url, **options)
        if shared:
            made.link(folder / "shared-codex", accounts.CODEX_SHARED)
        return made

    return make


@pytest.fixture
def start(clients: Clients, network: Network, folder: Path, work: Path) -> Start:
    """Start a client in a terminal of its own: which one, the home says."""
    number = 0

    def begin(home: Home, *arguments: str, directory: Path | None = None, **variables: str) -> Client:
        nonlocal number
        number += 1
        own = folder / f"t{number}"
        own.mkdir()
        program = clients.claude if isinstance(home, ClaudeHome) else clients.codex
        environment = {**home.variables, **variables}
        return Client(own, network, [str(program), *arguments], environment, directory or work, str(folder))

    return begin
