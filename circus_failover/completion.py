"""Completion scripts for shells: verbs and options are written into them; names and ids are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from circus_failover import agent_settings, assignment_text, settings
from circus_failover.verbs.about_self import REQUESTS
from circus_failover.words import AssignmentState

SHELLS = ("bash", "zsh", "fish")
FILE_VERBS = (
    *("validate", "up", "down", "doctor", "unit", "init"),
    *("hooks", "canaries", "drill", "add", "reloadconfig"),
)
GLOBAL = ("--endpoint", "--timeout", "--json", "--prettify", "--ssh", "--ssh_keyfile", "--help", "--version")
NAMES_SECS = 1.0


def names(endpoint: str | None) -> list[str]:
    """Return the identities of all agents; none when circusd does not answer within a second."""
    found = (agent.get("identity") for agent in _asked(endpoint, "fleet", "agents"))
    return _harmless(found, agent_settings.IDENTITY)


def pools(endpoint: str | None) -> list[str]:
    """Return the pools that agents are in; none when circusd does not answer within a second."""
    found = (agent.get("pool") for agent in _asked(endpoint, "fleet", "agents"))
    return sorted(set(_harmless(found, agent_settings.POOL)))


def accounts(endpoint: str | None) -> list[str]:
    """Return the accounts of failover.yaml; none when circusd does not answer within a second."""
    found = (account.get("name") for account in _asked(endpoint, "accounts", "accounts"))
    return _harmless(found, settings.ACCOUNT_NAME)


def assignments(endpoint: str | None) -> list[str]:
    """Return the ids of the assignments that are not over; none when circusd does not answer in a second."""
    found = (item.get("id") for item in _asked(endpoint, "work", "assignments"))
    return _harmless(found, assignment_text.ID)


ASKED: Mapping[str, Callable[[str | None], list[str]]] = {
    "names": names,
    "pools": pools,
    "accounts": accounts,
    "assignments": assignments,
}
"""What a script asks `failoverctl completion` for."""
WORDS = {
    "completion": SHELLS,
    "self": REQUESTS,
    "pool": ("create", "resize", "show", "remove", "list"),
    "notify": ("test",),
    "accounts": ("check", "forget"),
}
"""Verbs that take one of some words."""
BY_VERB = {
    **dict.fromkeys(("work", "release", "cancel"), ("assignments",)),
    "reassign": ("assignments", "names"),
    "pool": ("pools",),
    "accounts": ("accounts",),
    **dict.fromkeys(("completion", "self", "notify"), ()),
}
"""What the arguments of a verb are; of any other the names of agents."""
STATES = " ".join(str(state) for state in AssignmentState)
BY_OPTION = {"--pool": "pools", "--agent": "names", "--account": "accounts", "--to": "accounts"}


def _asked(endpoint: str | None, verb: str, key: str) -> list[dict[str, Any]]:
    from circus.exc import CallError
    from circus.util import DEFAULT_ENDPOINT_DEALER

    from circus_failover.circusd_site import ask

    where = endpoint or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
    try:
        found: list[dict[str, Any]] = ask(where, verb, NAMES_SECS).get(key, [])
    except CallError:
        return []
    return found


def _harmless(found: Iterable[object], pattern: re.Pattern[str]) -> list[str]:
    """Return what a shell may see: what is no name, or could not be such a one, is not passed on."""
    return [name for name in found if isinstance(name, str) and pattern.fullmatch(name)]


def script(shell: str, commands: Mapping[str, Any]) -> str:
    """Return the completion script of one shell.

    Args:
        shell: one of `SHELLS`.
        commands: every verb by its name, as `circus.commands.get_commands` gives them.
    """
    options = {
        verb: sorted({"--help", "--json", *(f"--{option[1]}" for option in command.options)})
        for verb, command in commands.items()
    }
    if shell == "fish":
        return _fish(commands, options)
    cases = "\n".join(f"    {verb}) echo '{' '.join(found)}' ;;" for verb, found in sorted(options.items()))
    words = "\n".join(f"    {verb}) echo '{' '.join(found)}' ;;" for verb, found in sorted(WORDS.items()))
    asked = "\n".join(f"    {verb}) echo '{' '.join(found)}' ;;" for verb, found in sorted(BY_VERB.items()))
    values = "\n".join(f"    {option}) _failoverctl_ask {kind} ;;" for option, kind in BY_OPTION.items())
    text = (
        _SHELL.replace("@VERBS@", " ".join(sorted(commands)))
        .replace("@GLOBAL@", " ".join(GLOBAL))
        .replace("@CASES@", cases)
        .replace("@WORDS@", words)
        .replace("@ASKED@", asked)
        .replace("@VALUES@", values)
        .replace("@STATES@", STATES)
        .replace("@OPTIONS@", "|".join((*BY_OPTION, "--state")))
        .replace("@FILES@", "|".join(FILE_VERBS))
    )
    return f"{text}{_BASH}" if shell == "bash" else f"#compdef failoverctl\n{text}{_ZSH}"


# What bash and zsh share: the words before the cursor are the arguments, the candidates are printed.
_SHELL = """\
# Completion of failoverctl.
_failoverctl_options() {
  case "$1" in
@CASES@
  esac
}
_failoverctl_fixed() {
  case "$1" in
@WORDS@
  esac
}
_failoverctl_kinds() {
  case "$1" in
@ASKED@
    *) echo names ;;
  esac
}
_failoverctl_words() {
  local word verb="" value="" endpoint="" kinds
  _failoverctl_ask() {
    failoverctl ${endpoint:+"--endpoint=$endpoint"} completion "$1" 2>/dev/null
  }
  for word in "$@"; do
    if [ -n "$value" ]; then
      if [ "$value" = --endpoint ]; then endpoint=$word; fi
      value=""
      continue
    fi
    case "$word" in
      --endpoint|--timeout|--ssh|--ssh_keyfile|@OPTIONS@) value=$word ;;
      -*) ;;
      *) if [ -z "$verb" ]; then verb=$word; fi ;;
    esac
  done
  case "$value" in
    "") ;;
@VALUES@
    --state) echo "@STATES@" ;;
  esac
  if [ -n "$value" ]; then return; fi
  case "$verb" in
    "") echo "@VERBS@ @GLOBAL@" ;;
    @FILES@) _failoverctl_options "$verb"; echo __files__ ;;
    *)
      _failoverctl_options "$verb"
      _failoverctl_fixed "$verb"
      kinds=$(_failoverctl_kinds "$verb")
      case "$kinds" in *names*) _failoverctl_ask names ;; esac
      case "$kinds" in *pools*) _failoverctl_ask pools ;; esac
      case "$kinds" in *accounts*) _failoverctl_ask accounts ;; esac
      case "$kinds" in *assignments*) _failoverctl_ask assignments ;; esac
      ;;
  esac
}
"""
_BASH = """\
_failoverctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} found
  found=$(_failoverctl_words "${COMP_WORDS[@]:1:COMP_CWORD-1}")
  COMPREPLY=($(compgen -W "${found//__files__/}" -- "$cur"))
  case "$found" in
    *__files__*) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$cur")) ;;
  esac
}
complete -F _failoverctl failoverctl
"""
_ZSH = """\
_failoverctl() {
  local found
  local -a candidates
  found=$(_failoverctl_words "${(@)words[2,CURRENT-1]}")
  candidates=(${=${found//__files__/}})
  compadd -a candidates
  if [[ $found == *__files__* ]]; then _files; fi
}
if [ "$funcstack[1]" = _failoverctl ]; then _failoverctl "$@"; else compdef _failoverctl failoverctl; fi
"""


def _fish(commands: Mapping[str, Any], options: Mapping[str, list[str]]) -> str:
    def text(words: str) -> str:
        escaped = re.sub(r"(['\\])", r"\\\1", words)
        return f"'{escaped}'"

    begin = "complete -c failoverctl"
    lines = ["# Completion of failoverctl.", f"{begin} -f"]
    lines += [f"{begin} -n __fish_use_subcommand -l {name[2:]}" for name in GLOBAL]
    for verb in sorted(commands):
        short = text(str(commands[verb].short))
        lines.append(f"{begin} -n __fish_use_subcommand -a {verb} -d {short}")
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        lines += [f"{begin} {seen} -l {name[2:]}{_fish_value(name)}" for name in options[verb]]
        if verb in FILE_VERBS:
            lines.append(f"{begin} {seen} -F")
        if verb in WORDS:
            lines.append(f"{begin} {seen} -a '{' '.join(WORDS[verb])}'")
        for kind in () if verb in FILE_VERBS else BY_VERB.get(verb, ("names",)):
            lines.append(f"{begin} {seen} -a '(failoverctl completion {kind} 2>/dev/null)'")
    return "\n".join(lines) + "\n"


def _fish_value(option: str) -> str:
    """Return what fish completes the value of an option with."""
    if option in BY_OPTION:
        return f" -x -a '(failoverctl completion {BY_OPTION[option]} 2>/dev/null)'"
    return f" -x -a '{STATES}'" if option == "--state" else ""
