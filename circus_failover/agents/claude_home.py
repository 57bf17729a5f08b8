"""Whether an account home lets Claude Code start and work, as far as its files tell.

Facts are of Claude Code 2.1.329. It reads a few small files and nothing else; no secret is in what it says.
What is certain to keep an agent from its work refuses a launch; what may be otherwise than the files say (a
broken file, a setting from elsewhere) is only shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover.agents import client_file
from circus_failover.agents.claude_files import HOME_VARIABLE, config_file, load, mapping, sequence, text
from circus_failover.agents.runtime import HomeProblem, HomeReport
from circus_failover.words import Credentials

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings

KEY_END = 20
"""So many last characters of a key does the client remember as the answer about it."""
TOKENS = ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
PROVIDERS = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
)
"""Somebody else sells the service, with credentials that are no matter of the home."""
API_KEY = "ANTHROPIC_API_KEY"
BYPASS = "--dangerously-skip-permissions"
MANAGED = Path(
    "/Library/Application Support/ClaudeCode/managed-settings.json"
    if sys.platform == "darwin"
    else "/etc/claude-code/managed-settings.json"
)
_FALSE = ("", "0", "false", "no", "off")


class _Look:
    """One look at a home."""

    def __init__(
        self, agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
    ) -> None:
        self.agent = agent
        self.home = home
        self.links = links
        self.config_path = config_file(home, variables)
        self.config, self.config_wrong = load(self.config_path)
        self.settings_path = home / "settings.json"
        self.settings, self.settings_wrong = load(self.settings_path)
        self.managed, _ = load(MANAGED)
        # What the settings set is in the client's environment, before what it was started with counts.
        own = {name: value for name, value in mapping(self.settings.get("env")).items() if text(value)}
        self.variables: dict[str, str] = {**variables, **own}
        self.own_variables = own
        by_hand = f"CLAUDE_CONFIG_DIR={home} claude"
        self.by_hand = f"start `{by_hand if variables.get(HOME_VARIABLE) else 'claude'}`"

    def answers(self, dialog: str) -> bool:
        """Say whether a setting answers a dialog."""
        return self.agent is not None and dialog in self.agent.dialogs

    # -- credentials ---------------------------------------------------------------------------------

    def key_answer(self) -> str | None:
        """Return what was answered about the key in the environment: approved, rejected, or nothing yet."""
        end = self.variables.get(API_KEY, "")[-KEY_END:]
        answers = mapping(self.config.get("customApiKeyResponses"))
        for answer in ("approved", "rejected"):
            if end and end in sequence(answers.get(answer)):
                return answer
        return None

    def credentials(self) -> tuple[Credentials, str]:
        """Return whether there is something to log in with, and what."""
        for name in PROVIDERS:
            if self.variables.get(name, "").lower() not in _FALSE:
                return Credentials.PRESENT, f"{name} ({self._from(name)})"
        key = self.variables.get(API_KEY)
        if key and self.key_answer() == "approved":
            return Credentials.PRESENT, f"api key ({self._from(API_KEY)})"
        for name in TOKENS:
            if self.variables.get(name):
                return Credentials.PRESENT, f"{name} ({self._from(name)})"
        if text(self.settings.get("apiKeyHelper")) or text(self.managed.get("apiKeyHelper")):
            return Credentials.PRESENT, f"apiKeyHelper ({self.settings_path})"
        login = self._login()
        if login is not None:
            return login
        if key and (self.key_answer() is None or self.config_wrong):
            # The dialog is what is in the way, and that is said by itself.
            return Credentials.PRESENT, f"api key ({self._from(API_KEY)}), not agreed to yet"
        if sys.platform == "darwin":
            return Credentials.UNKNOWN, "a login may be in the keychain, which is not looked at"
        rejected = f"; {API_KEY} is set, and was turned down in {self.config_path}" if key else ""
        return Credentials.ABSENT, f"no .credentials.json with a login, no key, no token{rejected}"

    def _login(self) -> tuple[Credentials, str] | None:
        path = self.home / ".credentials.json"
        content, wrong = load(path)
        if wrong:
            return Credentials.UNKNOWN, f"{path}: {wrong}"
        oauth = mapping(content.get("claudeAiOauth"))
        if text(oauth.get("accessToken")) or text(oauth.get("refreshToken")):
            return Credentials.PRESENT, "login"
        if text(self.config.get("primaryApiKey")):
            return Credentials.PRESENT, f"api key ({self.config_path})"
        return None

    def _from(self, name: str) -> str:
        return str(self.settings_path) if name in self.own_variables else "environment"

    # -- problems ------------------------------------------------------------------------------------

    def problems(self, credentials: Credentials, how: str) -> Iterator[HomeProblem]:
        """Yield all that is wrong."""
        if not self.home.is_dir():
            # The client makes one, with nothing in it.
            found = "a file" if self.home.exists() else "none"
            yield HomeProblem(
                "home", found, f"a folder {self.home}", f"{self.by_hand} once by hand, which makes it"
            )
            return
        yield from self._dangling()
        yield from self._broken()
        if credentials is Credentials.ABSENT:
            yield HomeProblem(
                "login",
                how,
                f"a login in {self.home}, or a key or token in env_file",
                f"{self.by_hand} by hand and log in with /login, or put a key into the account's env_file",
            )
        if not self.config_wrong:
            yield from self._onboarding()
            yield from self._key()
            yield from self._trust()
        yield from self._bypass()

    def _dangling(self) -> Iterator[HomeProblem]:
        for name in dict.fromkeys((*self.links, "projects")):
            path = self.home / name
            if path.is_symlink() and not path.exists():
                loses = "; the client works and saves no conversation" if name == "projects" else ""
                yield HomeProblem(
                    f"link {name}",
                    f"{path} leads to {os.readlink(path)}, which is not there{loses}",
                    "a link to an existing folder",
                    f"make that folder, or remove {path}",
                )

    def _broken(self) -> Iterator[HomeProblem]:
        for path, wrong in (
            (self.config_path, self.config_wrong),
            (self.settings_path, self.settings_wrong),
        ):
            if wrong:
                yield HomeProblem(
                    path.name,
                    f"{path}: {wrong}",
                    "an object of JSON",
                    "correct it: the client asks what to do about it at its start",
                    refuses=False,
                )

    def _onboarding(self) -> Iterator[HomeProblem]:
        if self.config.get("hasCompletedOnboarding") is not True:
            yield HomeProblem(
                "onboarding",
                f"{self.config_path} without hasCompletedOnboarding",
                "a home that was used once: the client asks about theme and login at its first start",
                f"{self.by_hand} once by hand and answer all it asks",
            )

    def _key(self) -> Iterator[HomeProblem]:
        if not self.variables.get(API_KEY) or API_KEY in self.own_variables:
            return
        if self.key_answer() is None and not self.answers("api-key"):
            yield HomeProblem(
                "api-key",
                f"{API_KEY} is set, and {self.config_path} has no answer about it",
                "its last 20 characters in customApiKeyResponses.approved: the client asks about a new key",
                f"set failover.dialogs = api-key=accept, or {self.by_hand} once by hand with that key",
                refuses=not any(self.variables.get(name, "").lower() not in _FALSE for name in PROVIDERS),
            )

    def _trust(self) -> Iterator[HomeProblem]:
        if self.agent is None or self.answers("trust") or self.variables.get("CLAUDE_CODE_SANDBOXED"):
            return
        projects = mapping(self.config.get("projects"))
        trusting = trusted_by(self.agent.working_dir)
        known = (mapping(projects.get(folder)) for folder in trusting)
        if not any(project.get("hasTrustDialogAccepted") is True for project in known):
            yield HomeProblem(
                "trust",
                f"{self.config_path} does not say that {trusting[0]} is trusted",
                "hasTrustDialogAccepted for it, or for a folder above it in the same repository",
                f"set failover.dialogs = trust=accept, or {self.by_hand} once by hand in {trusting[0]}",
            )

    def _bypass(self) -> Iterator[HomeProblem]:
        if self.agent is None or not bypasses((*self.agent.command, *self.agent.args)):
            return
        sandboxed = self.variables.get("IS_SANDBOX") == "1" or self.variables.get("CLAUDE_CODE_BUBBLEWRAP")
        if os.geteuid() == 0 and not sandboxed:
            yield HomeProblem(
                BYPASS,
                "root, and no IS_SANDBOX in the agent's environment",
                "another user, or IS_SANDBOX=1: the client refuses to root what may do anything",
                "run circusd as another user; or, where this host is a sandbox that may be lost, set"
                " IS_SANDBOX = 1 in the agent's [env:NAME] section or the account's env_file",
            )
        skip = "skipDangerousModePermissionPrompt"
        said = any(where.get(skip) is True for where in (self.settings, self.managed))
        if said or self.config.get("bypassPermissionsModeAccepted") is True or self.answers("bypass"):
            return
        yield HomeProblem(
            "bypass",
            f"{self.settings_path} without {skip}",
            f"{skip}: true: the client asks whether it may work without asking",
            f"set failover.dialogs = bypass=accept, or {self.by_hand} once by hand with {BYPASS}",
            # Settings named by --settings may say it too.
            refuses="--settings" not in " ".join(self.agent.args),
        )


def check(
    agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
) -> HomeReport:
    """Return what the files of an account home say; the arguments are those of `Runtime.check_home`."""
    look = _Look(agent, home, variables, links)
    credentials, how = look.credentials()
    return HomeReport(credentials, how, tuple(look.problems(credentials, how)))


def bypasses(words: Sequence[str]) -> bool:
    """Say whether a command line lets the client work without asking for permissions."""
    modes = [
        after for word, after in zip(words, (*words[1:], ""), strict=True) if word == "--permission-mode"
    ]
    return (
        BYPASS in words
        or "--allow-dangerously-skip-permissions" in words
        or "bypassPermissions" in modes
        or "--permission-mode=bypassPermissions" in words
    )


def trusted_by(working_dir: Path) -> list[str]:
    """Return the folders of which one must be trusted for a client to work in a folder, that folder first.

    Those are the folder and all above it; in a git repository only up to its root, and in a linked worktree
    the root of the main one too.
    """
    folder = os.path.realpath(working_dir)
    found = [folder]
    while True:
        git = os.path.join(folder, ".git")
        if os.path.isdir(git):
            return found
        if os.path.isfile(git):
            main = _main_worktree(git)
            return found if main is None else [*found, main]
        above = os.path.dirname(folder)
        if above == folder:
            return found
        folder = above
        found.append(folder)


def _main_worktree(git: str) -> str | None:
    """Return the root of the repository that a worktree's `.git` file leads to (`gitdir: ROOT/.git/...`)."""
    try:
        with client_file.opened(Path(git)) as file:
            leads = file.read(4096).decode(errors="replace")
    except OSError:
        return None
    target = os.path.join(os.path.dirname(git), leads.partition("gitdir:")[2].strip())
    root, separator, _ = os.path.realpath(target).partition("/.git/")
    return root if separator else None
