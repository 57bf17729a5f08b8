"""Account homes for the real clients: seeded so that they ask nothing at start, or ask what a test wants.

All credentials are made up; each account has its own, by which the mock knows who asks.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.waiting import LONGEST_SECS, wait_for

KEY_END = 20
"""So many last characters of a key does Claude Code remember as its answer about it (2.1.329)."""
CLAUDE_SHARED = ("projects", "file-history", "session-env")
CODEX_SHARED = ("sessions", "thread-writer-locks")
"""What two accounts must share so that each can resume the other's conversations."""
CLAUDE_QUIET = {
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}


@dataclass(frozen=True)
class Home:
    """One account's home folder, and what a program needs to use it."""

    name: str
    folder: Path
    key: str
    """The account's credential, as the mock sees it."""
    variables: dict[str, str] = field(default_factory=dict)
    """The environment that makes a client use this account, and reach the mock alone."""

    def link(self, shared: Path, names: Iterable[str]) -> None:
        """Let folders of this home be links into a root that accounts share to stand in for one another."""
        for name in names:
            (shared / name).mkdir(parents=True, exist_ok=True)
            (self.folder / name).symlink_to(shared / name)

    def env_file(self, path: Path) -> Path:
        """Write the environment as a file that only its owner may read, a `NAME=value` a line."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in self.variables.items())
        return path


class ClaudeHome(Home):
    """A home for Claude Code (`CLAUDE_CONFIG_DIR`)."""

    def transcript(self, directory: Path, conversation: str) -> Path:
        """Return where the transcript of a conversation in a working directory is, or will be."""
        project = re.sub(r"[^a-zA-Z0-9]", "-", str(directory.resolve()))
        return self.folder / "projects" / project / f"{conversation}.jsonl"

    def entries(self, directory: Path, conversation: str) -> list[dict[str, Any]]:
        """Return the whole entries of a transcript so far; none when there is no transcript."""
        return jsonl(self.transcript(directory, conversation))

    def status(self, pid: int) -> dict[str, Any]:
        """Return what Claude Code says of a process of its own, in a file; empty when there is none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "sessions" / f"{pid}.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def await_status(self, pid: int, status: str, timeout: float = LONGEST_SECS) -> dict[str, Any]:
        """Wait until Claude Code says that it has this status, and return all it says."""

        def look() -> dict[str, Any] | None:
            found = self.status(pid)
            return found if found.get("status") == status else None

        return wait_for(f"process {pid} has the status {status}", look, timeout)

    def change(self, file: str, **values: Any) -> None:
        """Set keys of `.claude.json` or `settings.json`."""
        path = self.folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def record_hooks(self, *events: str) -> None:
        """Let Claude Code report events; what it reports is in `hooked`."""
        script = self.folder / "hook.sh"
        report = shlex.quote(str(self.folder / "hooks.jsonl"))
        script.write_text(f"#!/bin/sh\npayload=$(cat)\nprintf '%s\\n' \"$payload\" >>{report}\n")
        script.chmod(0o700)
        one = [{"hooks": [{"type": "command", "command": str(script)}]}]
        self.change("settings.json", hooks=dict.fromkeys(events, one))

    def hooked(self, event: str) -> list[dict[str, Any]]:
        """Return what was reported of an event so far, the oldest first."""
        return [one for one in jsonl(self.folder / "hooks.jsonl") if one["hook_event_name"] == event]


class CodexHome(Home):
    """A home for Codex (`CODEX_HOME`)."""

    def rollouts(self) -> list[Path]:
        """Return the transcripts, the oldest first."""
        return sorted(self.folder.glob("sessions/*/*/*/rollout-*.jsonl"))

    def locked(self) -> list[str]:
        """Return the ids of conversations for which there is a lock file, open now or once."""
        return sorted(path.stem for path in self.folder.glob("thread-writer-locks/[0-9a-f]*.lock"))


def jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file that a client may be writing to."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def make_claude_home(
    folder: Path,
    name: str,
    url: str,
    trusted: Iterable[Path],
    *,
    auth: str = "login",
    approved: bool = True,
    bypass: bool = True,
) -> ClaudeHome:
    """Make a home for Claude Code.

    Args:
        folder: where; it must not exist.
        name: the account's name.
        url: the address of the mock.
        trusted: working directories in which it may work without asking.
        auth: how the account is known: `login` (a subscription in `.credentials.json`), `token` (its token
            in the environment), `key` (an interface key in the environment), `none`.
        approved: whether the use of a key was agreed to.
        bypass: whether the mode without permissions was agreed to.
    """
    folder.mkdir(parents=True, mode=0o700)
    key = f"sk-ant-{'api03' if auth == 'key' else 'oat01'}-offline-{name}-{os.urandom(12).hex()}"
    state: dict[str, Any] = {
        "hasCompletedOnboarding": True,
        "projects": {str(path.resolve()): {"hasTrustDialogAccepted": True} for path in trusted},
    }
    if approved:
        state["customApiKeyResponses"] = {"approved": [key[-KEY_END:]], "rejected": []}
    _write(folder / ".claude.json", state)
    _write(folder / "settings.json", {"skipDangerousModePermissionPrompt": True} if bypass else {})
    scratch = folder.parent / "tmp"
    scratch.mkdir(exist_ok=True)
    variables = {"CLAUDE_CONFIG_DIR": str(folder), "ANTHROPIC_BASE_URL": url, **CLAUDE_QUIET}
    variables["CLAUDE_CODE_TMPDIR"] = str(scratch)
    if os.geteuid() == 0:
        # Without it Claude Code 2.1.329 refuses --dangerously-skip-permissions to root.
        variables["IS_SANDBOX"] = "1"
    if auth == "token":
        variables["CLAUDE_CODE_OAUTH_TOKEN"] = key
    elif auth == "key":
        variables["ANTHROPIC_API_KEY"] = key
    elif auth == "login":
        _write(
            folder / ".credentials.json",
            {
                "claudeAiOauth": {
                    "accessToken": key,
                    "refreshToken": f"sk-ant-ort01-offline-{name}",
                    "expiresAt": int((time.time() + 30 * 86400) * 1000),
                    "scopes": ["user:inference", "user:profile"],
                    "subscriptionType": "max",
                }
            },
        )
    return ClaudeHome(name, folder, key, variables)


def make_codex_home(
    folder: Path,
    name: str,
    url: str,
    trusted: Iterable[Path],
    *,
    auth: str = "login",
    asks: bool = False,
    daemon: bool = False,
) -> CodexHome:
    """Make a home for Codex.

    Args:
        folder: where; it must not exist.
        name: the account's name.
        url: the address of the mock.
        trusted: working directories in which it may work without asking.
        auth: how the account is known: `login` (a key in `auth.json`), `env` (a key in the environment),
            `chatgpt` (a subscription in `auth.json`: Codex 0.169.0 does not start with it offline), `none`.
        asks: whether it asks before it leaves its sandbox.
        daemon: whether its screen may start a background process that stays.
    """
    folder.mkdir(parents=True, mode=0o700)
    key = f"sk-offline-{name}-{os.urandom(12).hex()}"
    lines = ['model = "gpt-5"', 'model_provider = "offline"', "check_for_update_on_startup = false"]
    if not asks:
        lines += ['approval_policy = "never"', 'sandbox_mode = "danger-full-access"']
    lines += [
        "[model_providers.offline]",
        'name = "Offline"',
        f'base_url = "{url}/v1"',
        'wire_api = "responses"',
        "request_max_retries = 1",
        "stream_max_retries = 1",
        'env_key = "OFFLINE_KEY"' if auth == "env" else "requires_openai_auth = true",
        "[analytics]",
        "enabled = false",
    ]
    if not daemon:
        lines += ["[features]", "daemon_auto_start = false"]
    for path in trusted:
        lines += [f"[projects.{json.dumps(str(path.resolve()))}]", 'trust_level = "trusted"']
    (folder / "config.toml").write_text("\n".join(lines) + "\n")
    variables = {"CODEX_HOME": str(folder)}
    if auth == "env":
        variables["OFFLINE_KEY"] = key
    elif auth == "login":
        _write(folder / "auth.json", {"OPENAI_API_KEY": key})
    elif auth == "chatgpt":
        claims = {"email": f"{name}@example.invalid", "exp": int(time.time()) + 30 * 86400}
        token = _token({**claims, "https://api.openai.com/auth": {"chatgpt_plan_type": "plus"}})
        tokens = {"id_token": token, "access_token": key, "refresh_token": "offline", "account_id": name}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _write(folder / "auth.json", {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": now})
    return CodexHome(name, folder, key, variables)


def _token(claims: dict[str, Any]) -> str:
    """Return a JSON Web Token without a signature that anybody could check (RFC 7519)."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)] + [b"none"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _write(path: Path, content: dict[str, Any]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=1)
