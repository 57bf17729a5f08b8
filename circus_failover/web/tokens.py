"""The console's own folder in the state directory (0700): its tokens, the secret that signs, what has ended.

Every file is for its owner only (0600); one that others could read is refused and never used. Tokens are made
once, and anew when somebody asks for that. Who may do what with a token is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from circus_failover import private_file, process_table
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from circus_failover.words import Role

MOST_ENDED = 10_000
"""Sessions and codes that ended before their time which are remembered, until that time."""
_MOST_BYTES = 4 * 1024 * 1024
_SECRET_BYTES = 32
_FILES = {Role.OPERATOR: "token", Role.VIEWER: "viewer-token"}
_COOKIE_SECRET = "cookie-secret"
_ENDED = "ended.json"
_RUNNING = "console.json"
_FORWARD = "open.html"


class TokensUnusable(Exception):
    """The folder or a file in it cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Tokens:
    """What one reading of the files gave."""

    operator: str
    viewer: str
    secret: str
    """Signs cookies and codes."""


@dataclass(frozen=True)
class Running:
    """The console that uses a folder now."""

    process: ProcessId
    url: str


class TokenFolder:
    """The folder of one state directory.

    Args:
        state: the state directory.
    """

    def __init__(self, state: StateDir) -> None:
        self.path = state.web
        self._state = state

    def prepare(self) -> None:
        """Make the folder and the tokens that are missing; who comes second uses what the first has made.

        Raises:
            TokensUnusable: it cannot be made, or is open to others.
        """
        try:
            self._state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            self.check()
            for role, name in _FILES.items():
                if self._make(name):
                    self._marker(role).unlink(missing_ok=True)
            self._make(_COOKIE_SECRET)
        except OSError as error:
            raise TokensUnusable(f"{self.path} cannot be used: {error}") from error

    def check(self) -> None:
        """Check that the folder, if it is there, is this user's and nobody else's.

        Raises:
            TokensUnusable: it is not.
        """
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise TokensUnusable(f"{self.path} cannot be looked at: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise TokensUnusable(f"{self.path} is no folder: move it away")
        self._check_owner(self.path, found.st_uid)
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise TokensUnusable(
                f"{self.path} has mode {stat.S_IMODE(found.st_mode):04o}, expected 0700: "
                f"chmod 700 {self.path}, and make new tokens: failoverctl web --new-tokens"
            )

    def read(self) -> Tokens:
        """Return what the files hold.

        Raises:
            TokensUnusable: one is missing, is empty, or is open to others.
        """
        return Tokens(*(self._read(name) for name in (*_FILES.values(), _COOKIE_SECRET)))

    def stamp(self) -> tuple[object, ...]:
        """Return what is another value once the tokens are others."""
        found: list[object] = []
        for name in (*_FILES.values(), _COOKIE_SECRET, _ENDED):
            try:
                status = os.stat(self.path / name)
                found.append((status.st_ino, status.st_mtime_ns, status.st_mode, status.st_uid))
            except OSError as error:
                found.append(error.errno)
        return tuple(found)

    def renew(self) -> None:
        """Make new tokens and a new secret: every session and every code ends.

        Raises:
            TokensUnusable: they cannot be written; some may be new.
        """
        try:
            for role in Role:
                self._marker(role).unlink(missing_ok=True)
            # The secret last: who signs in with a new token before that has to once more, never the reverse.
            for name in (*_FILES.values(), _COOKIE_SECRET):
                private_file.replace(self.path / name, _random() + "\n")
            # What ended was signed by the secret before.
            (self.path / _ENDED).unlink(missing_ok=True)
        except OSError as error:
            raise TokensUnusable(f"{self.path} cannot be written: {error}") from error

    def first_shown(self, role: Role) -> bool:
        """Say whether a role's token is shown for the first time, and remember that it was.

        Raises:
            TokensUnusable: that cannot be remembered.
        """
        try:
            os.close(os.open(self._marker(role), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        except OSError as error:
            raise TokensUnusable(f"{self._marker(role)} cannot be written: {error}") from error
        return True

    # -- what ended before its time ----------------------------------------------------------------------

    def ended(self) -> dict[str, float]:
        """Return the ids of sessions and codes that ended, each with the time until which that matters.

        Raises:
            TokensUnusable: it cannot be read, so any of them might have ended.
        """
        try:
            content = json.loads(self._read(_ENDED))
            return {str(one): float(until) for one, until in content.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            path = self.path / _ENDED
            raise TokensUnusable(
                f"{path} cannot be read ({error}): remove it, and make new tokens: "
                "failoverctl web --new-tokens"
            ) from error

    def keep_ended(self, ended: Mapping[str, float], now: float) -> None:
        """Have these remembered, the newest first when there are too many.

        Raises:
            TokensUnusable: they cannot be written.
        """
        kept = sorted(((until, one) for one, until in ended.items() if until > now), reverse=True)
        try:
            private_file.replace(
                self.path / _ENDED, json.dumps({one: until for until, one in kept[:MOST_ENDED]})
            )
        except OSError as error:
            raise TokensUnusable(f"{self.path / _ENDED} cannot be written: {error}") from error

    # -- the console that runs ---------------------------------------------------------------------------

    def announce(self, url: str) -> None:
        """Say where this process's console is reached.

        Raises:
            OSError: it cannot be written.
        """
        me = process_table.identify(os.getpid())
        content = {"pid": os.getpid(), "start": me.start if me else 0, "url": url}
        private_file.replace(self.path / _RUNNING, json.dumps(content))

    def withdraw(self) -> None:
        """Take that back, where it is still this process that is meant."""
        found = self._announced()
        if found is not None and found.process.pid == os.getpid():
            with contextlib.suppress(OSError):
                (self.path / _RUNNING).unlink()

    def running(self) -> Running | None:
        """Return the living console of this folder, or None."""
        found = self._announced()
        try:
            return found if found is not None and process_table.alive(found.process) else None
        except process_table.ProbeFailed:
            return found

    def _announced(self) -> Running | None:
        try:
            content = json.loads(self._read(_RUNNING))
            process = ProcessId(int(content["pid"]), int(content["start"]))
            return Running(process, str(content["url"]))
        except (OSError, TokensUnusable, ValueError, KeyError, TypeError):
            return None

    # -- opening a browser -------------------------------------------------------------------------------

    def write_forward(self, page: str) -> Path:
        """Write the page that leads a browser to the console, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        path = self.path / _FORWARD
        private_file.replace(path, page)
        return path

    def remove_forward(self) -> None:
        """Remove it: the code in it has been used."""
        with contextlib.suppress(OSError):
            (self.path / _FORWARD).unlink()

    # ----------------------------------------------------------------------------------------------------

    def _marker(self, role: Role) -> Path:
        return self.path / f"{_FILES[role]}.shown"

    def _make(self, name: str) -> bool:
        """Make a file with a new secret, whole, unless it is there; say whether it was made here."""
        path = self.path / name
        if path.is_symlink() or path.exists():
            return False
        temporary = self.path / f".{name}.{os.getpid()}.{time.monotonic_ns()}"
        private_file.replace(temporary, _random() + "\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    @staticmethod
    def _check_owner(path: Path, owner: int) -> None:
        if owner != os.geteuid():
            raise TokensUnusable(
                f"{path} belongs to uid {owner} and this runs as uid {os.geteuid()}: run this as its owner"
            )

    def _read(self, name: str) -> str:
        """Return a file's text.

        Raises:
            FileNotFoundError: `ended.json` is not there.
            TokensUnusable: it is open to others, is empty, or cannot be read.
        """
        path = self.path / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if name == _ENDED:
                raise
            raise TokensUnusable(f"{path} is not there: failoverctl web --new-tokens makes it") from None
        except OSError as error:
            raise TokensUnusable(f"{path} cannot be read: {error.strerror}") from error
        try:
            found = os.fstat(handle)
            mode = stat.S_IMODE(found.st_mode)
            if not stat.S_ISREG(found.st_mode):
                raise TokensUnusable(f"{path} is no file: move it away")
            self._check_owner(path, found.st_uid)
            if mode & 0o077:
                raise TokensUnusable(
                    f"{path} has mode {mode:04o}, expected 0600: others may have read it; "
                    "make new tokens: failoverctl web --new-tokens"
                )
            with open(handle, encoding="utf-8", closefd=False) as file:
                text = file.read(_MOST_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokensUnusable(f"{path} cannot be read: {error}") from error
        finally:
            os.close(handle)
        if len(text) < _SECRET_BYTES and name not in (_ENDED, _RUNNING):
            raise TokensUnusable(f"{path} is too short to be a secret: failoverctl web --new-tokens")
        return text


def _random() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)
