"""Would systemd or logind end agents? Found from control groups, unit settings and logind's configuration.

An agent is in the control group of whatever started its tmux server. systemd ends all of a unit's processes
at `systemctl stop` unless KillMode says otherwise (systemd.kill(5)), and after one was killed for want of
memory when OOMPolicy says so (systemd.service(5)). At logout it ends a session's scope when
KillUserProcesses=yes (logind.conf(5)), and a user manager with all in it unless that user lingers
(loginctl(1)).
"""

from __future__ import annotations

import configparser
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circus_failover.doctor_checks import Check, fail, ok, warn

SYSTEMCTL_SECS = 5.0
LOGIND_FILE = Path("/etc/systemd/logind.conf")
LOGIND_DROP_INS = tuple(
    Path(folder, "systemd/logind.conf.d") for folder in ("/usr/lib", "/usr/local/lib", "/run", "/etc")
)
"""Later folders override files of the same name in earlier ones (systemd.unit(5), logind.conf(5))."""
LINGER = Path("/var/lib/systemd/linger")


@dataclass(frozen=True)
class Place:
    """Where systemd keeps a process.

    `service` is the unit it is in, `user_manager` the uid of the user manager above that, `session` the scope
    of a login session. All None: systemd has no hand in it.
    """

    service: str | None = None
    user_manager: int | None = None
    session: str | None = None


def place(cgroup: str) -> Place:
    """Read a `/proc/PID/cgroup`, of version 1 or 2 (cgroups(7)).

    On a hybrid host systemd's own hierarchy is `name=systemd`; its tree counts unless it is empty.
    """
    paths: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controller, _, path = rest.partition(":")
        paths[controller] = path
    path = paths.get("name=systemd", "/")
    if path == "/":
        path = paths.get("", "/")
    # systemd puts a `_` before what the kernel might take for a file of its own (cg_escape).
    parts = [part.removeprefix("_") for part in path.split("/") if part]
    manager: int | None = None
    service: str | None = None
    session: str | None = None
    for part in parts:
        user = re.fullmatch(r"user@(\d+)\.service", part)
        if user:
            manager = int(user[1])
        elif part.endswith(".service"):
            service = part
        elif re.fullmatch(r"session-[^/]+\.scope", part):
            session = part
    return Place(service, manager, session)


def place_of(pid: int) -> Place | None:
    """Return where a process is; None when that cannot be read (it ended, or this is no Linux)."""
    try:
        return place(Path(f"/proc/{pid}/cgroup").read_text(errors="replace"))
    except OSError:
        return None


# -- units -------------------------------------------------------------------------------------------


def unit_settings(found: Place, timeout: float = SYSTEMCTL_SECS) -> dict[str, str] | None:
    """Ask systemd for the settings that decide what ends a unit's processes; None: it did not say.

    Args:
        found: a place with a service.
        timeout: seconds to wait.
    """
    uid = os.geteuid()
    if found.service is None or (found.user_manager is not None and found.user_manager != uid):
        return None
    scope = ["--user"] if found.user_manager is not None else []
    environment = {**os.environ}
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{uid}")
    properties = "KillMode,OOMPolicy,SendSIGKILL"
    try:
        done = subprocess.run(
            ["systemctl", *scope, "show", "-p", properties, "--", found.service],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_show(done.stdout) if done.returncode == 0 else None


def parse_show(text: str) -> dict[str, str] | None:
    """Read what `systemctl show` printed; None when it does not say KillMode."""
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return settings if settings.get("KillMode") else None


def unit(who: str, found: Place, settings: Mapping[str, str] | None) -> list[Check]:
    """Judge the unit that a process is in.

    Args:
        who: whose process it is.
        found: where it is.
        settings: KillMode and OOMPolicy; None: unknown.
    """
    name = found.service
    flag = " --user" if found.user_manager is not None else ""
    edit = f"systemctl{flag} edit {name}, and set in [Service]"
    if settings is None:
        asked = f"systemctl{flag} show -p KillMode,OOMPolicy {name}"
        return [
            warn("systemd", f"{who} is in {name}, whose settings are unknown", f"{asked}: process, continue")
        ]
    checks = []
    kill, memory = settings["KillMode"], settings.get("OOMPolicy")
    if kill in ("control-group", "mixed"):
        finding = f"{who} is in {name} with KillMode={kill}: `systemctl{flag} stop` ends every agent"
        checks.append(
            fail("systemd", finding, f"{edit} KillMode=process (failoverctl unit prints a good one)")
        )
    if memory in ("stop", "kill"):
        finding = f"{who} is in {name} with OOMPolicy={memory}: one agent out of memory stops circusd"
        checks.append(fail("systemd", finding, f"{edit} OOMPolicy=continue"))
    shown = f"KillMode={kill}, OOMPolicy={memory or 'unknown'}"
    return checks or [ok("systemd", f"{who} is in {name}: {shown}")]


# -- logout ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logind:
    """What logind does at logout; `kill` None: nothing says so, and systemd's builds differ."""

    kill: bool | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ("root",)

    def kills(self, user: str) -> bool | None:
        """Say whether the processes of this user's sessions are ended at logout; None: unknown."""
        if user in self.exclude or (self.only and user not in self.only):
            return False
        return self.kill


def logind(file: Path = LOGIND_FILE, folders: Iterable[Path] = LOGIND_DROP_INS) -> Logind:
    """Read logind's configuration: the file, then drop-ins by name; the last assignment wins.

    Where nothing is assigned, the comment in the shipped file tells the default of this build.
    """
    drop_ins: dict[str, Path] = {}
    for folder in folders:
        drop_ins.update({path.name: path for path in _listed(folder)})
    texts = [_text(file), *(_text(drop_ins[name]) for name in sorted(drop_ins))]
    default = re.search(r"^\s*#\s*KillUserProcesses\s*=\s*(\w+)", texts[0], re.MULTILINE)
    kill = _boolean(default[1]) if default else None
    found = Logind(kill)
    for text in texts:
        section = _login(text)
        if section.get("KillUserProcesses") is not None:
            value = section["KillUserProcesses"]
            kill = _boolean(value) if value else (_boolean(default[1]) if default else None)
        only = section.get("KillOnlyUsers")
        exclude = section.get("KillExcludeUsers")
        found = Logind(
            kill,
            found.only if only is None else tuple(only.split()),
            found.exclude if exclude is None else tuple(exclude.split()),
        )
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == ".conf"]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _login(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(
        strict=False, delimiters=("=",), comment_prefixes=("#", ";"), allow_no_value=True
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {key: value or "" for key, value in parser.items("Login")} if parser.has_section("Login") else {}


def _boolean(text: str) -> bool | None:
    word = text.strip().lower()
    if word in ("yes", "y", "true", "t", "on", "1"):
        return True
    return False if word in ("no", "n", "false", "f", "off", "0") else None


def lingers(user: str, folder: Path = LINGER) -> bool:
    """Say whether a user's manager runs without a login (`loginctl enable-linger`)."""
    return os.path.exists(folder / user)


def logout(who: str, found: Place, user: str, settings: Logind, linger: bool) -> list[Check]:
    """Judge what happens to a process when its user logs out.

    Args:
        who: whose process it is.
        found: where it is.
        user: the name of the user it runs as.
        settings: logind's.
        linger: whether that user lingers.
    """
    enable = f"loginctl enable-linger {user}"
    if found.user_manager is not None:
        if linger:
            return [ok("logout", f"{who} is in the manager of {user}, who lingers")]
        finding = f"{who} is in the manager of {user}, which ends at logout with everything in it"
        return [fail("logout", finding, enable)]
    if found.session is None:
        return []
    move = f"{enable}, and run circusd as a unit of its own (failoverctl unit --user)"
    kills = settings.kills(user)
    if kills:
        finding = f"{who} is in {found.session}, and KillUserProcesses=yes: logout ends every agent"
        return [fail("logout", finding, f"{move}; or KillUserProcesses=no in {LOGIND_FILE}")]
    if kills is None:
        finding = f"{who} is in {found.session}, and nothing says whether logind ends it at logout"
        return [warn("logout", finding, f"KillUserProcesses=no in {LOGIND_FILE}, or {move}")]
    return [ok("logout", f"{who} is in {found.session}, which logout leaves alone")]


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def examine(processes: Mapping[str, int], uid: int) -> list[Check]:
    """Look where processes are, and judge each place once.

    Args:
        processes: pids, by what the operator calls the process.
        uid: who runs them.
    """
    places: dict[Place, list[str]] = {}
    unknown: list[str] = []
    for who, pid in processes.items():
        found = place_of(pid)
        if found is None:
            unknown.append(who)
        else:
            places.setdefault(found, []).append(who)
    user = user_name(uid)
    checks: list[Check] = []
    for found, names in places.items():
        who = _named(names)
        if found.service is not None:
            checks.extend(unit(who, found, unit_settings(found)))
        checks.extend(logout(who, found, user, logind(), lingers(user)))
        if found == Place():
            checks.append(ok("systemd", f"{who}: in no unit and no login session"))
    if unknown and os.path.isdir("/proc/self"):
        checks.append(warn("systemd", f"{_named(unknown)}: where it runs cannot be read"))
    return checks


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
