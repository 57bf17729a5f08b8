"""What `init` prints, as lines and as JSON: what was found, what is planned, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Container
from pathlib import Path
from typing import Any

from circus_failover.client_processes import DEFAULT_HOMES, VARIABLES
from circus_failover.init import files
from circus_failover.init.plan import Move, Plan, Wish
from circus_failover.init.steps import Kind, Step
from circus_failover.init.survey import Survey
from circus_failover.problems import printable
from circus_failover.validation import Report
from circus_failover.words import Credentials


def survey_lines(survey: Survey) -> list[str]:
    """Return what is on this machine, a line each."""
    lines = []
    for client in survey.clients:
        version = printable(client.version or "of unknown version")
        lines.append(f"client   {client.runtime} {version} ({printable(client.program)})")
    for home in survey.homes:
        login = printable(f"credentials {home.credentials} ({home.how})")
        lines.append(f"home     {printable(str(home.path))}: {home.runtime}, {home.evidence}; {login}")
    for found in survey.sessions:
        where = printable(f"{found.session} on {found.socket}")
        lines.append(f"session  {where}: {found.runtime}, pid {found.process.pid}")
    lines += [f"silent   {printable(trouble)}" for trouble in survey.trouble]
    return lines or ["nothing  no client, no account home, no tmux session with a client"]


def plan_lines(plan: Plan) -> list[str]:
    """Return what would be done, a line each; renames and notes of single files are left to the moves."""
    lines = [f"move     {move_text(move)}" for move in plan.moves]
    said = {move.source for move in plan.moves}
    for step in plan.steps:
        inside = any(step.path == source or step.path.startswith(source + "/") for source in said)
        if step.kind is Kind.KEEP_TIMES or (inside and step.kind is not Kind.LINK):
            continue
        lines.append(f"{_word(step):8} {_what(step)}")
    return lines


def _word(step: Step) -> str:
    return {Kind.REMOVE_EMPTY: "remove"}.get(step.kind, str(step.kind))


def _what(step: Step) -> str:
    path = printable(step.path)
    if step.kind is Kind.REMOVE_EMPTY:
        return f"the empty folder {path}"
    return f"{path} -> {printable(step.target)}" if step.target else path


def move_text(move: Move) -> str:
    """Return one move: what, where to, how much, and how."""
    how = "copied and compared, across file systems" if move.copied else "renamed"
    if move.merged:
        how += ", name by name, into the folder that is there"
    if move.aside:
        how += f"; the original stays as {printable(move.aside)}"
    source, target = printable(move.source), printable(move.target)
    return f"{source} -> {target}: {move.files} file{'s' * (move.files != 1)}, {move.size} bytes; {how}"


def next_lines(
    wish: Wish, survey: Survey, verbs: Container[str], report: Report, hooked: Container[str] = ()
) -> list[str]:
    """Return the commands that come next, one a line, each as it can be typed.

    Args:
        wish: what was wanted.
        survey: what was found.
        verbs: the verbs that there are.
        report: what `validate` found.
        hooked: the accounts that have our hooks by now.
    """
    lines = []
    known = {home.path: home.credentials for home in survey.homes}
    for account in wish.accounts:
        runtime = account.runtime
        unknown = Credentials.ABSENT if account.name in wish.new else Credentials.UNKNOWN
        if runtime in VARIABLES and known.get(account.home, unknown) is Credentials.ABSENT:
            login = "codex login" if runtime == "codex" else "claude"
            default = account.home.name == DEFAULT_HOMES[runtime] and account.home.parent == Path.home()
            variable = "" if default else f"{VARIABLES[runtime]}={shlex.quote(str(account.home))} "
            lines.append(f"{variable}{login}")
    ini = shlex.quote(str(wish.folder / files.INI))
    lines.append(f"failoverctl up {ini}" if report.ok else f"failoverctl validate {ini}")
    if "hooks" in verbs:
        without = [one for one in wish.accounts if one.runtime in VARIABLES and one.name not in hooked]
        lines += [f"failoverctl hooks install {ini} --account {account.name}" for account in without]
    if "adopt" in verbs and any(not found.launch for found in survey.sessions):
        lines.append(f"failoverctl adopt {ini}")
    return lines


def report_lines(report: Report) -> list[str]:
    """Return what `validate` found."""
    lines = [f"problem  {problem}" for problem in report.problems]
    lines += [f"gate     {failure}" for failure in report.failures]
    lines += [f"note     {note}" for note in report.notes]
    refused = f": {', '.join(report.refused)}" if report.refused else ""
    lines.append(f"agents   {len(report.accepted)} can be launched, {len(report.refused)} refused{refused}")
    return lines


def survey_json(survey: Survey) -> dict[str, Any]:
    """Return what is on this machine."""
    return {
        "clients": [vars(client) for client in survey.clients],
        "homes": [
            {
                "runtime": home.runtime,
                "home": str(home.path),
                "evidence": home.evidence,
                "credentials": str(home.credentials),
                "how": home.how,
                "shared": None if home.root is None else str(home.root),
            }
            for home in survey.homes
        ],
        "sessions": [
            {
                "socket": str(found.socket),
                "session": found.session,
                "runtime": found.runtime,
                "pid": found.process.pid,
                "home": _text(found.home),
                "working_dir": _text(found.working_dir),
                "agent": found.launch,
            }
            for found in survey.sessions
        ],
        "trouble": list(survey.trouble),
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def plan_json(plan: Plan, texts: dict[str, str]) -> dict[str, Any]:
    """Return what would be done."""
    return {
        "moves": [vars(move) for move in plan.moves],
        "steps": [str(step) for step in plan.steps if step.kind is not Kind.KEEP_TIMES],
        "files": texts,
        "refusals": list(plan.refusals),
    }


def report_json(report: Report) -> dict[str, Any]:
    """Return what `validate` found."""
    return {
        "ok": report.ok,
        "problems": [str(problem) for problem in report.problems],
        "failures": [str(failure) for failure in report.failures],
        "accepted": list(report.accepted),
        "refused": list(report.refused),
        "notes": list(report.notes),
    }
