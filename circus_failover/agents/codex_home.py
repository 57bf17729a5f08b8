"""What the files of a Codex account home say before a launch: settings, credentials, trust.

It reads files only, asks no client and no network, and prints no secret. What Codex would read from elsewhere
(its keyring, managed settings, a project's own) is unknown here, and then nothing is refused for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover.agents import client_file, codex_processes
from circus_failover.agents.runtime import HomeProblem, HomeReport
from circus_failover.words import Credentials

# The standard library has it from Python 3.11 on; before, it is what that was made from.
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from circus_failover.agent_settings import AgentSettings

CONFIG = "config.toml"
MANAGED = "/etc/codex"
"""Settings of the host, which are not read here: where there are any, trust may be said there."""
DAEMON = "daemon_auto_start"
_POLICIES = ("approval_policy", "sandbox_mode", "default_permissions")
_POLICY_ARGUMENTS = ("-a", "--ask-for-approval", "-s", "--sandbox", "--approve-for-me")


@dataclass(frozen=True)
class Config:
    """The settings that Codex takes together: its file, a profile, its arguments."""

    values: Mapping[str, Any] = field(default_factory=dict)
    broken: str | None = None
    """Why the file cannot be read; None: it can."""

    def text(self, name: str) -> str | None:
        """Return a value that is text; None when there is none."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def table(self, *names: str) -> Mapping[str, Any]:
        """Return a table; empty when there is none."""
        found: Any = self.values
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


def config(home: Path, arguments: Sequence[str] = ()) -> Config:
    """Return the settings of an account home, with those that arguments give."""
    values: dict[str, Any] = {}
    broken = None
    for name in (CONFIG, *(f"{profile}.{CONFIG}" for profile in given(arguments, "-p", "--profile"))):
        try:
            _lay(values, _read(home / name))
        except (OSError, ValueError) as error:
            broken = broken or f"{name}: {error}"
    for pair in given(arguments, "-c", "--config"):
        name, _, value = pair.partition("=")
        _lay(values, _nested(name.strip().split("."), _value(value.strip())))
    for option, on in (("--enable", True), ("--disable", False)):
        for feature in given(arguments, option):
            _lay(values, {"features": {feature: on}})
    return Config(values, broken)


def given(arguments: Sequence[str], *names: str) -> Iterator[str]:
    """Yield the values of an option: `-c VALUE`, `--config VALUE`, `--config=VALUE`, `-cVALUE`."""
    for index, word in enumerate(arguments):
        for name in names:
            if word == name and index + 1 < len(arguments):
                yield arguments[index + 1]
            elif word.startswith(f"{name}="):
                yield word[len(name) + 1 :]
            elif len(name) == 2 and word.startswith(name) and len(word) > 2:
                yield word[2:]


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = client_file.read(path)
    except FileNotFoundError:
        return {}
    try:
        found: dict[str, Any] = tomllib.loads(raw.decode())
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return found


def _lay(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        below = under.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            _lay(below, value)
        else:
            under[name] = value


def _nested(names: Sequence[str], value: object) -> dict[str, Any]:
    return {names[0]: value if len(names) == 1 else _nested(names[1:], value)}


def _value(text: str) -> object:
    """Return a value as Codex reads it: TOML, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError, RecursionError):
        return text.strip("\"'")


# -- the report --------------------------------------------------------------------------------------------


def check(
    agent: AgentSettings | None, home: Path, variables: Mapping[str, str], links: Sequence[str]
) -> HomeReport:
    """Return what the files of an account home say; the arguments are those of `Runtime.check_home`."""
    if not home.is_dir():
        problem = HomeProblem(
            "home",
            "it is not there" if not os.path.lexists(home) else "it is no folder",
            "a folder: Codex does not start without it",
            f"mkdir -m 700 {home}, and log in: CODEX_HOME={home} codex login",
        )
        return HomeReport(Credentials.ABSENT, "there is no home", (problem,))
    arguments = (*agent.command, *agent.args) if agent is not None else ()
    settings = config(home, arguments)
    credentials, how = _credentials(settings, home, variables)
    problems = list(_links(home, links))
    if settings.broken is not None:
        # Shown only: Codex's own reader decides, and may take what this one does not.
        problems.append(
            HomeProblem(CONFIG, settings.broken, "TOML that can be read", "correct it", refuses=False)
        )
    if credentials is Credentials.ABSENT:
        remedy = f"CODEX_HOME={home} codex login, or a key in the account's env_file"
        problems.append(HomeProblem("login", how, "a login, or the key of the model provider", remedy))
    if settings.text("approval_policy") == "untrusted":
        problems.append(
            HomeProblem(
                "approval_policy",
                "untrusted",
                "on-request or never: Codex does not start with it any more",
                f"change it in {home / CONFIG}",
            )
        )
    if agent is None or agent.account is not None:
        problems += _daemon(settings, home)
    if agent is not None and settings.broken is None:
        problems += _trust(agent, settings, arguments, home)
    return HomeReport(credentials, how, tuple(problems))


def _links(home: Path, links: Sequence[str]) -> Iterator[HomeProblem]:
    for name in links:
        path = home / name
        if path.is_symlink() and not path.exists():
            yield HomeProblem(
                f"link {name}",
                f"a link to {os.readlink(path)}, where nothing is",
                "a link to a folder: Codex would not find or keep its conversations",
                f"mkdir -p {os.readlink(path)}, or correct the link {path}",
            )


def _daemon(settings: Config, home: Path) -> Iterator[HomeProblem]:
    if settings.table("features").get(DAEMON) is not True:
        return
    running = codex_processes.daemon(home)
    found = f"features.{DAEMON} = true"
    yield HomeProblem(
        "daemon",
        found if running is None else f"{found}, and process {running.pid} is it",
        "no background server: it outlives its agents, and goes on with their work",
        f"take features.{DAEMON} out of {home / CONFIG} and of failover.args"
        + ("" if running is None else f", and end it: kill {running.pid}"),
        refuses=running is not None,
    )


# -- credentials -------------------------------------------------------------------------------------------


def _credentials(settings: Config, home: Path, variables: Mapping[str, str]) -> tuple[Credentials, str]:
    if settings.broken is not None:
        return Credentials.UNKNOWN, f"{CONFIG} cannot be read"
    provider = settings.text("model_provider") or "openai"
    table = settings.table("model_providers", provider)
    key = table.get("env_key")
    if isinstance(key, str) and key:
        if variables.get(key, "").strip():
            return Credentials.PRESENT, f"api key ({key})"
        return Credentials.ABSENT, f"{key} is not set, which the model provider {provider} wants"
    if table.get("experimental_bearer_token"):
        return Credentials.PRESENT, f"token ({CONFIG})"
    if table.get("auth") or provider in ("amazon-bedrock", "bedrock"):
        return Credentials.UNKNOWN, f"the model provider {provider} has a way of its own"
    if table and table.get("requires_openai_auth") is not True:
        return Credentials.PRESENT, f"the model provider {provider} wants none"
    if not table and provider not in ("openai", "openai-chatgpt"):
        return Credentials.UNKNOWN, f"the model provider {provider} is not in {CONFIG}"
    return _stored(settings, home)


def _stored(settings: Config, home: Path) -> tuple[Credentials, str]:
    """Say what `auth.json` holds. OPENAI_API_KEY or CODEX_API_KEY is no login: it asks for one (0.169.0)."""
    store = settings.text("cli_auth_credentials_store") or "file"
    try:
        said = json.loads(client_file.read(home / "auth.json"))
    except FileNotFoundError:
        if store != "file":
            return Credentials.UNKNOWN, f"in the keyring, if anywhere (cli_auth_credentials_store = {store})"
        return Credentials.ABSENT, "auth.json is not there"
    except (OSError, ValueError, RecursionError) as error:
        return Credentials.UNKNOWN, f"auth.json cannot be read: {error}"
    if store == "keyring":
        return Credentials.UNKNOWN, "in the keyring, if anywhere (cli_auth_credentials_store = keyring)"
    if not isinstance(said, dict):
        return Credentials.UNKNOWN, "auth.json is in a format that is not known"
    tokens = said.get("tokens")
    if isinstance(tokens, dict) and any(tokens.get(name) for name in ("access_token", "refresh_token")):
        return Credentials.PRESENT, "login (ChatGPT)"
    if said.get("OPENAI_API_KEY"):
        return Credentials.PRESENT, "api key (auth.json)"
    if any(value for name, value in said.items() if name not in ("last_refresh", "auth_mode")):
        return Credentials.UNKNOWN, "auth.json holds a login of a kind that is not known"
    return Credentials.ABSENT, "auth.json holds no login"


# -- trust -------------------------------------------------------------------------------------------------


def _trust(
    agent: AgentSettings, settings: Config, arguments: Sequence[str], home: Path
) -> Iterator[HomeProblem]:
    """Yield what is missing for Codex to ask nothing about the working directory.

    It asks about directories in git repositories alone, and takes what is said of the directory or of the
    repository's root; of a worktree that is the main one's. Where the settings have policies of their own it
    does not ask (0.169.0).
    """
    roots = repository(agent.working_dir)
    if roots is None or any(settings.values.get(name) is not None for name in _POLICIES):
        return
    if any(word.partition("=")[0] in _POLICY_ARGUMENTS for word in arguments):
        return
    known = {os.path.realpath(path): said for path, said in settings.table("projects").items()}
    folder, (own, main) = Path(os.path.realpath(agent.working_dir)), roots
    within = [path for path in (folder, *folder.parents) if path == own or own in path.parents]
    for path in dict.fromkeys((*within, main)):
        said = known.get(str(path))
        level = said.get("trust_level") if isinstance(said, dict) else None
        if level == "untrusted" and "restricted" not in agent.dialogs:
            yield HomeProblem(
                "trust",
                f'projects."{path}".trust_level = "untrusted"',
                '"trusted": Codex asks at each start whether to open it all the same',
                "set failover.dialogs = restricted=accept, or trust it in " + str(home / CONFIG),
            )
        if level is not None:
            return
    if "trust" not in agent.dialogs:
        yield HomeProblem(
            "trust",
            f'projects."{main}".trust_level is not set',
            '"trusted": Codex asks whether it is',
            f"set failover.dialogs = trust=accept, or trust it in {home / CONFIG}",
            refuses=not os.path.isdir(MANAGED),
        )


def repository(directory: Path) -> tuple[Path, Path] | None:
    """Return the root of the git repository that a directory is in, and of the one it is a worktree of.

    They are the same but for a worktree. None: it is in none.
    """
    folder = Path(os.path.realpath(directory))
    for path in (folder, *folder.parents):
        mark = path / ".git"
        if mark.is_dir():
            return path, path
        if mark.is_file():
            try:
                link = client_file.read(mark).decode().strip().removeprefix("gitdir:").strip()
            except (OSError, ValueError):
                return path, path
            # `gitdir: /main/.git/worktrees/NAME`, gitrepository-layout(5)
            target = Path(os.path.realpath(path / link))
            if target.parent.name == "worktrees" and target.parent.parent.name == ".git":
                return path, target.parent.parent.parent
            return path, path
    return None
