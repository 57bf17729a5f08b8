"""Completion scripts for shells: verbs and options are written into them, agent names are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from circus_failover import agent_settings

SHELLS = ("bash", "zsh", "fish")
FILE_VERBS = (
    *("validate", "up", "down", "doctor", "unit", "init"),
    *("hooks", "canaries", "drill", "add", "reloadconfig"),
)
GLOBAL = ("--endpoint", "--timeout", "--json", "--prettify", "--ssh", "--ssh_keyfile", "--help", "--version")
NAMES_SECS = 1.0


def names(endpoint: str | None) -> list[str]:
    """Return the identities of all agents; none when circusd does not answer within a second."""
    from circus.exc import CallError
    from circus.util import DEFAULT_ENDPOINT_DEALER

    from circus_failover.circusd_site import ask

    where = endpoint or os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)
    try:
        agents = ask(where, "fleet", NAMES_SECS).get("agents", [])
    except CallError:
        return []
    # A shell will see them: what is no identity is not passed on.
    found = [str(agent.get("identity")) for agent in agents]
    return [name for name in found if agent_settings.IDENTITY.fullmatch(name)]


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
    text = (
        _SHELL.replace("@VERBS@", " ".join(sorted(commands)))
        .replace("@GLOBAL@", " ".join(GLOBAL))
        .replace("@CASES@", cases)
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
_failoverctl_words() {
  local word verb="" value="" endpoint=""
  for word in "$@"; do
    if [ -n "$value" ]; then
      if [ "$value" = --endpoint ]; then endpoint=$word; fi
      value=""
      continue
    fi
    case "$word" in
      --endpoint|--timeout|--ssh|--ssh_keyfile) value=$word ;;
      -*) ;;
      *) if [ -z "$verb" ]; then verb=$word; fi ;;
    esac
  done
  if [ -n "$value" ]; then return; fi
  case "$verb" in
    "") echo "@VERBS@ @GLOBAL@" ;;
    completion) echo "bash zsh fish" ;;
    @FILES@) _failoverctl_options "$verb"; echo __files__ ;;
    *)
      _failoverctl_options "$verb"
      failoverctl ${endpoint:+"--endpoint=$endpoint"} completion names 2>/dev/null
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
        lines += [f"{begin} {seen} -l {name[2:]}" for name in options[verb]]
        if verb in FILE_VERBS:
            lines.append(f"{begin} {seen} -F")
        elif verb == "completion":
            lines.append(f"{begin} {seen} -a 'bash zsh fish'")
        else:
            lines.append(f"{begin} {seen} -a '(failoverctl completion names 2>/dev/null)'")
    return "\n".join(lines) + "\n"
