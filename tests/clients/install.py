"""Installs the real clients, once, below the user's cache folder; nothing else here uses the network.

The versions and the checksums of all packages are those of `pinned/package-lock.json`. An installation is
made beside its place and moved there when it is whole, so a test finds all of it or nothing; workers that
come at the same time wait for one another. It never changes an installation that is there.

`python -m tests.clients.install` does it ahead of the tests, and says what it did.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PINNED = Path(__file__).parent / "pinned"
CLAUDE_PACKAGE = "@anthropic-ai/claude-code"
CODEX_PACKAGE = "@openai/codex"
INSTALL_SECS = 600.0
FAILURE_SECS = 300.0
"""For how long a failed installation is not tried again: each test worker would wait for the network."""


class NotInstalled(Exception):
    """The clients are not there and cannot be installed; the text says why and what to do."""


@dataclass(frozen=True)
class Clients:
    """The real clients, as programs."""

    folder: Path
    claude: Path
    """Claude Code: a native program."""
    codex: Path
    """Codex as npm installs it: a script that becomes the native program, or stays its parent (old node)."""
    codex_native: Path
    """Codex's native program itself."""
    versions: dict[str, str]
    """Package to version."""


def versions() -> dict[str, str]:
    """Return the pinned versions, package to version."""
    found: dict[str, str] = json.loads((PINNED / "package.json").read_text())["dependencies"]
    return found


def folder() -> Path:
    """Return where these versions are, or would be, installed."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # XDG Base Directory Specification 0.8: a path that is not absolute is to be ignored.
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    pinned = versions()
    name = f"claude-{pinned[CLAUDE_PACKAGE]}-codex-{pinned[CODEX_PACKAGE]}"
    return base / "circus-failover" / "clients" / name


def find() -> Clients | None:
    """Return the installed clients, or None; touches nothing."""
    place = folder()
    modules = place / "node_modules"
    native = sorted(modules.glob("@openai/codex-*/vendor/*/bin/codex"))
    claude, codex = modules / ".bin" / "claude", modules / ".bin" / "codex"
    if not (claude.exists() and codex.exists() and native):
        return None
    return Clients(place, claude, codex, native[0], versions())


def ensure(*, again: bool = False) -> Clients:
    """Return the clients, installed now where they were not.

    Args:
        again: try also when it failed a moment ago.

    Raises:
        NotInstalled: npm is missing, or it failed; the text says how.
    """
    if (found := find()) is not None:
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("npm is not installed (not on PATH); the tests with the real clients need it once")
    place = folder()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.parent / "install.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (found := find()) is not None:
                return found
            _install(npm, place, again)
    except OSError as error:
        raise NotInstalled(f"the clients cannot be installed into {place}: {error}") from error
    if (found := find()) is None:
        raise NotInstalled(f"npm installed no Claude Code or no Codex for this platform into {place}")
    return found


def _install(npm: str, place: Path, again: bool) -> None:
    failed = place.with_name(f"{place.name}.failed")
    if not again and failed.exists() and time.time() - failed.stat().st_mtime < FAILURE_SECS:
        raise NotInstalled(f"{failed.read_text()} (to try again at once: python -m tests.clients.install)")
    staging = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PINNED / name, staging)
        reason = _run_npm(npm, staging)
        if reason is not None:
            failed.write_text(reason)
            raise NotInstalled(reason)
        # Whatever stands there is not whole: nobody can be using it.
        shutil.rmtree(place, ignore_errors=True)
        staging.rename(place)
        failed.unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run_npm(npm: str, staging: Path) -> str | None:
    """Install into a folder that holds the lock file, and try both programs; return what went wrong."""
    # Claude Code's package puts its native program in place by an install script.
    command = [npm, "ci", "--ignore-scripts=false", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            [*command, "--fetch-retries=1"],
            cwd=staging,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECS,
        )
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[:400]
            return f"npm could not install the clients (exit {done.returncode}): {said}"
        for name, package in (("claude", CLAUDE_PACKAGE), ("codex", CODEX_PACKAGE)):
            program = staging / "node_modules" / ".bin" / name
            tried = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60.0)
            if tried.returncode != 0 or versions()[package] not in tried.stdout:
                return f"{package} was installed and does not run here: {(tried.stdout + tried.stderr)[:400]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"npm could not install the clients: {error}"
    return None


def main() -> int:
    """Install the clients where they are not; exit 1 with the reason when they cannot be."""
    if find() is None:
        wanted = ", ".join(f"{name} {version}" for name, version in versions().items())
        print(f"clients: installing {wanted} into {folder()}", file=sys.stderr)
        try:
            ensure(again=True)
        except NotInstalled as error:
            print(f"clients: {error}", file=sys.stderr)
            return 1
        print("clients: installed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
