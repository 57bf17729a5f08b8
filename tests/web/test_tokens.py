"""The console's folder: secrets that are made once, are for their owner alone, and are never half there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circus_failover.state_dir import StateDir
from circus_failover.web.tokens import MOST_ENDED, TokenFolder, TokensUnusable
from circus_failover.words import Role

SECRETS = ("token", "viewer-token", "cookie-secret")


@pytest.fixture
def folder(tmp_path: Path) -> TokenFolder:
    made = TokenFolder(StateDir(tmp_path / "state"))
    made.prepare()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_at_the_first_start_for_their_owner_alone_and_are_kept(folder: TokenFolder) -> None:
    assert mode(folder.path) == 0o700 and mode(folder.path.parent) == 0o700
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(SECRETS)
    assert {mode(folder.path / name) for name in SECRETS} == {0o600}
    tokens = folder.read()
    assert len({tokens.operator, tokens.viewer, tokens.secret}) == 3
    assert all(len(secret) >= 43 for secret in vars(tokens).values())
    folder.prepare()
    assert folder.read() == tokens


def test_a_umask_that_gives_to_everybody_gives_nothing_of_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = TokenFolder(StateDir(tmp_path / "state"))
        folder.prepare()
        folder.announce("http://127.0.0.1:1")
        folder.keep_ended({"x": time.time() + 60}, time.time())
        folder.write_forward("x")
        assert folder.first_shown(Role.OPERATOR)
        modes = {path.name: mode(path) for path in folder.path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600} and len(modes) == 7, modes


def test_consoles_that_start_at_once_agree_on_the_same_secrets(tmp_path: Path) -> None:
    def make(_: int) -> object:
        folder = TokenFolder(StateDir(tmp_path / "state"))
        folder.prepare()
        return folder.read()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(32)))) == 1
    assert sorted(path.name for path in (tmp_path / "state" / "web").iterdir()) == sorted(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("wrong", ["open", "empty", "short", "gone", "link", "folder", "binary"])
def test_what_cannot_be_trusted_is_not_used_and_says_what_to_do(
    folder: TokenFolder, name: str, wrong: str
) -> None:
    path = folder.path / name
    text = path.read_text()
    if wrong == "open":
        path.chmod(0o640)
    elif wrong == "empty":
        path.write_text("")
    elif wrong == "short":
        path.write_text("secret\n")
    elif wrong == "binary":
        path.write_bytes(b"\xff" * 50)
    else:
        path.unlink()
    if wrong == "link":
        (folder.path / "other").write_text(text)
        (folder.path / "other").chmod(0o600)
        path.symlink_to("other")
    elif wrong == "folder":
        path.mkdir()
    with pytest.raises(TokensUnusable, match=str(path)) as error:
        folder.read()
    assert text.strip() not in str(error.value)


def test_a_folder_that_others_may_enter_is_not_used(folder: TokenFolder) -> None:
    folder.path.chmod(0o750)
    for look in (folder.prepare, folder.check):
        with pytest.raises(TokensUnusable, match="mode 0750, expected 0700"):
            look()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_somebody_else_is_named_so(folder: TokenFolder) -> None:
    os.chown(folder.path / "token", 12345, -1)
    with pytest.raises(TokensUnusable, match="uid 12345 and this runs as uid 0: run this as its owner"):
        folder.read()
    os.chown(folder.path, 12345, -1)
    with pytest.raises(TokensUnusable, match="belongs to uid 12345"):
        folder.check()


def test_new_tokens_are_others_and_are_shown_once_more(folder: TokenFolder) -> None:
    before, stamp = folder.read(), folder.stamp()
    assert folder.first_shown(Role.OPERATOR) and not folder.first_shown(Role.OPERATOR)
    assert folder.first_shown(Role.VIEWER)
    folder.keep_ended({"x": time.time() + 60}, time.time())
    (folder.path / "token").chmod(0o644)
    folder.renew()
    after = folder.read()
    assert not set(vars(before).values()) & set(vars(after).values())
    assert folder.stamp() != stamp
    assert folder.first_shown(Role.OPERATOR) and folder.ended() == {}


def test_a_token_that_was_removed_is_made_anew_and_shown_once(folder: TokenFolder) -> None:
    before = folder.read()
    folder.first_shown(Role.OPERATOR)
    folder.first_shown(Role.VIEWER)
    (folder.path / "token").unlink()
    folder.prepare()
    after = folder.read()
    assert after.operator != before.operator
    assert (after.viewer, after.secret) == (before.viewer, before.secret)
    assert folder.first_shown(Role.OPERATOR) and not folder.first_shown(Role.VIEWER)


def test_what_ended_is_remembered_as_long_as_it_matters_and_no_longer(folder: TokenFolder) -> None:
    assert folder.ended() == {}
    ended = {f"id{number}": 1000.0 + number for number in range(MOST_ENDED + 50)}
    folder.keep_ended(ended, 1010.0)
    found = folder.ended()
    assert len(found) == MOST_ENDED and min(found.values()) == 1050.0
    folder.keep_ended(ended, 1e9)
    assert folder.ended() == {}
    (folder.path / "ended.json").write_text("[1")
    # What cannot be read might have named any session.
    with pytest.raises(TokensUnusable, match="--new-tokens"):
        folder.ended()


def test_the_console_that_runs_is_known_by_pid_and_start_and_takes_back_only_its_own_word(
    folder: TokenFolder,
) -> None:
    assert folder.running() is None
    folder.announce("http://127.0.0.1:8787")
    found = folder.running()
    assert found is not None and (found.process.pid, found.url) == (os.getpid(), "http://127.0.0.1:8787")
    folder.withdraw()
    assert folder.running() is None
    announcing = (
        "import sys; from pathlib import Path; from circus_failover.state_dir import StateDir;"
        "from circus_failover.web.tokens import TokenFolder;"
        "TokenFolder(StateDir(Path(sys.argv[1]))).announce('http://127.0.0.1:9')"
    )
    subprocess.run([sys.executable, "-c", announcing, str(folder.path.parent)], check=True)
    assert folder.running() is None
    folder.withdraw()
    assert (folder.path / "console.json").exists()
    # The same pid, but another process: what a recycled pid looks like.
    (folder.path / "console.json").write_text(json.dumps({"pid": os.getpid(), "start": 1, "url": "http://x"}))
    assert folder.running() is None
    for text in ("", "[]", "{}", '{"pid": "x"}', "\x00"):
        (folder.path / "console.json").write_text(text)
        assert folder.running() is None


def test_a_full_disk_is_named(folder: TokenFolder) -> None:
    # A folder where the next temporary file would be: as root no mode keeps anybody from writing.
    (folder.path / "token.tmp").mkdir()
    with pytest.raises(TokensUnusable, match="cannot be written"):
        folder.renew()
    (folder.path / "ended.json.tmp").mkdir()
    with pytest.raises(TokensUnusable, match="cannot be written"):
        folder.keep_ended({}, 0.0)
