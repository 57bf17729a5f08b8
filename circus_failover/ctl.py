"""failoverctl: circusctl with the verbs that know agents, and those that need no circusd.

Everything of circusctl works (verbs, options, its shell); what differs: exit codes are the same with
`--json`, names and options mix freely, option names with a dash are passed on, and verbs that report a
verdict wait for it.
"""

from __future__ import annotations

import argparse
import getopt
import os
import sys
import textwrap
from collections.abc import Container
from typing import Any

import zmq
from circus import circusctl
from circus.client import CircusClient
from circus.commands import get_commands
from circus.exc import ArgumentError, CallError
from circus.util import DEFAULT_ENDPOINT_DEALER, DEFAULT_ENDPOINT_SUB

from circus_failover import __version__, output
from circus_failover.circusd_client import Client

DONE, UNREACHABLE, USAGE, REFUSED = 0, 1, 2, 3
TIMEOUT_SECS = 5
VERDICT_TIMEOUT_SECS = 3600
"""For verbs that answer with a verdict; --timeout sets another bound."""
VERDICT_VERBS = frozenset({"start", "restart", "reloadconfig", "wake", "fresh"})
TOLD_TIMEOUT_SECS = 60
TOLD_VERBS = frozenset({"tell"})
"""They are told how long this client waits, and give up before it does."""
WAITING_VERBS = frozenset({"stop", "rm", "reload", "quit", "park"})


class App(circusctl.ControllerApp):  # type: ignore[misc]
    """Runs one command line; its return value is the exit code."""

    globalopts: dict[str, Any]

    def run_with(self, parsed: dict[str, Any]) -> int:
        """Run what `parse_arguments` returned."""
        self.globalopts = parsed
        return self.run(parsed["args"])

    def run(self, args: argparse.Namespace) -> int:
        """Run a parsed command, and turn every failure into one line and an exit code."""
        from circus_failover.problems import SettingsError
        from circus_failover.verbs.local import Failed

        try:
            code = int(self.dispatch(args) or 0)
            # What cannot be written is found here, and not when the interpreter ends.
            sys.stdout.flush()
            return code
        except (getopt.GetoptError, ArgumentError, ValueError) as error:
            if isinstance(error, SettingsError):
                return _fail(str(error), UNREACHABLE)
            return _fail(f"{error} (see: failoverctl {args.command} --help)", USAGE)
        except CallError as error:
            return _fail(_unreachable(error, args), UNREACHABLE)
        except zmq.ZMQError as error:
            return _fail(f"--endpoint {args.endpoint or _endpoint()!r} cannot be used: {error}", USAGE)
        except Failed as error:
            return _fail(str(error), error.code)
        except BrokenPipeError:
            # Nobody reads any more (`| head`).
            output.forget()
            return DONE
        except OSError as error:
            output.forget()
            return _fail(f"{error.filename or 'standard output'}: {error.strerror}", REFUSED)
        except KeyboardInterrupt:
            return 130

    def dispatch(self, args: argparse.Namespace) -> int:
        """Build the message, send it, print the answer."""
        command = self.commands[args.command]
        if args.help:
            print(textwrap.dedent(command.__doc__).strip())
            return DONE
        opts = {option[1]: getattr(args, _kept_as(option[1])) for option in command.options}
        if command.msg_type == "local":
            return int(command.run(self.globalopts, *args.args, **opts))
        if args.command == "start" and "start" in opts:
            opts["start"] = args.start
        try:
            message = command.message(*args.args, **opts)
        except (AttributeError, LookupError, TypeError) as error:
            # Some of Circus's own verbs (0.19) fail so: `set NAME env X=1`.
            raise ArgumentError(f"these arguments make no sense to {args.command}: {error}") from error
        if command.msg_type == "dealer":
            for one in message if isinstance(message, list) else [{"msg": message}]:
                one["msg"].setdefault("properties", {}).update(_sender(args.command, args.timeout))
        endpoint = args.endpoint
        if endpoint is None and command.msg_type == "sub":
            endpoint = os.environ.get("CIRCUSCTL_PUBSUB_ENDPOINT", DEFAULT_ENDPOINT_SUB)
        handler = getattr(self, f"handle_{command.msg_type}")
        return int(
            handler(command, self.globalopts, message, endpoint, args.timeout, args.ssh, args.ssh_keyfile)
            or 0
        )

    def handle_dealer(
        self,
        command: Any,
        opts: dict[str, Any],
        msg: Any,
        endpoint: str | None,
        timeout: int,
        ssh: Any,
        key: Any,
    ) -> int:
        """Send one or several messages to circusd."""
        client = Client(
            endpoint=endpoint or _endpoint(),
            timeout=min(timeout, TIMEOUT_SECS),
            ssh_server=ssh,
            ssh_keyfile=key,
        )
        try:
            if timeout > TIMEOUT_SECS:
                # Nobody should wait an hour for a circusd that is not there.
                client.send_message("numwatchers")
                client.timeout = timeout * 1000
            worst = DONE
            for one in msg if isinstance(msg, list) else [{"cmd": command, "msg": msg}]:
                worst = max(worst, self._call(client, one["cmd"], opts, one["msg"]))
            return worst
        finally:
            client.stop()

    def _call(self, client: CircusClient, command: Any, opts: dict[str, Any], msg: Any) -> int:
        from circus_failover import verb_progress
        from circus_failover.verbs.answers import verdict_lines

        with verb_progress.shown(command.name, msg, client.endpoint):
            answer = client.call(msg)
        if answer.get("status") == "ok" and msg.get("properties", {}).get("wait"):
            answer = self._followed(client, command, opts, answer)
        failed = answer.get("status") == "error"
        if opts["json"]:
            print(circusctl.prettify(answer, prettify=opts["prettify"] and sys.stdout.isatty()))
            if failed:
                print(f"error: {answer.get('reason')}", file=sys.stderr)
        else:
            came_through = [one for one in answer.get("agents", ()) if failed and one["ok"]]
            if came_through:
                # Of several, some did not: what became of the others is said too.
                print(verdict_lines(came_through), flush=True)
            text = command.console_error(answer) if failed else command.console_msg(answer)
            print(text, file=sys.stderr if failed else sys.stdout)
        return REFUSED if failed else DONE

    def _followed(
        self, client: CircusClient, command: Any, opts: dict[str, Any], answer: dict[str, Any]
    ) -> dict[str, Any]:
        """Wait for what a verb has begun, by asking again and again, and return the last answer."""
        from circus_failover.verbs.local_tools import progress, warn

        if not command.settled(answer):
            if not opts["json"]:
                print(command.console_msg(answer), flush=True)
            client.timeout = TIMEOUT_SECS * 1000
            with progress() as say:
                answer = command.follow(client.call, answer, opts["bound"], say, warn)
        verdict: dict[str, Any] = command.verdict(answer)
        return verdict


def _sender(verb: str, timeout: float) -> dict[str, Any]:
    """Return what a message says of its sender: shown as who asked."""
    sender: dict[str, Any] = {"by": f"{_login()}@failoverctl"}
    if verb in VERDICT_VERBS:
        sender["waiting"] = True
    if verb in TOLD_VERBS:
        sender["secs"] = timeout
    return sender


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _endpoint() -> str:
    return os.environ.get("CIRCUSCTL_ENDPOINT") or str(DEFAULT_ENDPOINT_DEALER)


def _fail(reason: str, code: int) -> int:
    print(f"failoverctl: {reason}", file=sys.stderr)
    return code


def _unreachable(error: CallError, args: argparse.Namespace) -> str:
    where = args.endpoint or _endpoint()
    if "timed out" in str(error).lower():
        return (
            f"no answer from {where}: circusd is not running there "
            "(failoverctl up circus.ini starts it), listens elsewhere (--endpoint, CIRCUSCTL_ENDPOINT), "
            "or needs longer (--timeout)"
        )
    return f"{where}: {error}"


class _Parser(argparse.ArgumentParser):
    """Usage errors in one line, exit 2."""

    def error(self, message: str) -> Any:
        print(f"failoverctl: {message} (see: failoverctl --help)", file=sys.stderr)
        sys.exit(USAGE)


def _global_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="failoverctl", add_help=False, allow_abbrev=False)
    _add_global_options(parser)
    parser.set_defaults(endpoint=None, timeout=None, json=False, prettify=False, ssh=None, ssh_keyfile=None)
    parser.set_defaults(help=False)
    parser.add_argument("--version", action="version", version=f"failoverctl {__version__}")
    return parser


def _add_global_options(parser: argparse.ArgumentParser, but: Container[str] = ()) -> None:
    """Add the options that every verb has, except those a verb has of its own."""
    quiet = argparse.SUPPRESS
    options: dict[str, dict[str, Any]] = {
        "endpoint": {"help": "circusd's endpoint (CIRCUSCTL_ENDPOINT)"},
        "timeout": {"type": int, "help": "seconds to wait for an answer"},
        "json": {"action": "store_true", "help": "print the answer as JSON"},
        "prettify": {"action": "store_true", "help": "indent and colour JSON on a terminal"},
        "ssh": {"help": "SSH server in the form user@host:port"},
        "ssh_keyfile": {"help": "path of the key for it"},
    }
    for name, details in options.items():
        if name not in but:
            parser.add_argument(f"--{name}", default=quiet, **details)
    text = "show this help, or a verb's"
    parser.add_argument("--help", "-h", action="store_true", default=quiet, help=text)


def parse_arguments(arguments: list[str], commands: dict[str, Any]) -> dict[str, Any]:
    """Parse a command line as circusctl does, but let names and options mix.

    Returns:
        circusctl's mapping of global options, with `parser`, `args` (`command` in it when one was given), and
        `bound`: --timeout, if it was given.
    """
    parser = _global_parser()
    before, verb, after = _split(arguments, commands)
    if verb is None and before and any(not word.startswith("-") for word in _words(before)):
        from circus_failover.problems import nearest

        word = next(word for word in _words(before) if not word.startswith("-"))
        print(
            f"failoverctl: no verb {word!r}{nearest(word, commands)} (see: failoverctl --help)",
            file=sys.stderr,
        )
        sys.exit(USAGE)
    args = parser.parse_args(before)
    if verb is not None:
        own = _verb_parser(verb, commands[verb])
        own.parse_intermixed_args(after, namespace=args)
        args.command = verb
    bound = args.timeout
    if args.timeout is None:
        waits = verb in VERDICT_VERBS or (verb in WAITING_VERBS and getattr(args, "waiting", False))
        args.timeout = VERDICT_TIMEOUT_SECS if waits else TIMEOUT_SECS
        if verb in TOLD_VERBS:
            args.timeout = TOLD_TIMEOUT_SECS
    options = {
        name: getattr(args, name)
        for name in ("json", "prettify", "endpoint", "timeout", "ssh", "ssh_keyfile")
    }
    return {**options, "bound": bound, "args": args, "parser": parser}


_WITH_VALUE = ("--endpoint", "--timeout", "--ssh", "--ssh_keyfile")


def _words(arguments: list[str]) -> list[str]:
    """Return the arguments without the values of global options."""
    words, skip = [], False
    for argument in arguments:
        if not skip:
            words.append(argument)
        skip = not skip and argument in _WITH_VALUE
    return words


def _split(arguments: list[str], commands: dict[str, Any]) -> tuple[list[str], str | None, list[str]]:
    """Split at the verb: the first argument that is neither an option nor an option's value."""
    skip = False
    for index, argument in enumerate(arguments):
        if skip:
            skip = False
        elif argument in _WITH_VALUE:
            skip = True
        elif not argument.startswith("-"):
            if argument in commands:
                return arguments[:index], argument, arguments[index + 1 :]
            break
    return arguments, None, []


def _verb_parser(verb: str, command: Any) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"failoverctl {verb}", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("args", nargs="*", default=[])
    # People write them behind the verb too; what stood before it keeps its value when they do not.
    _add_global_options(parser, but={option[1] for option in command.options})
    for _, name, default, text in command.options:
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action="store_true", default=default, help=text)
        elif isinstance(default, list):
            parser.add_argument(f"--{name}", action="append", default=default, help=text, dest=_kept_as(name))
        else:
            parser.add_argument(f"--{name}", default=default, help=text, dest=_kept_as(name))
    return parser


def _kept_as(option: str) -> str:
    """Return the attribute an option of a verb is kept as; `command` and `args` are the parser's own."""
    return f"own_{option}" if option in ("command", "args") else option.replace("-", "_")


class Shell(circusctl.CircusCtl):  # type: ignore[misc]
    """circusctl's shell, with our parser and exit codes behind each verb."""

    prompt = "(failoverctl) "

    @classmethod
    def _add_do_cmd(cls, name: str, command: Any) -> None:
        import shlex

        def run(self: Shell, line: str) -> None:
            try:
                parsed = parse_arguments([name, *shlex.split(line)], cls.commands)
            except (SystemExit, ValueError) as error:
                if isinstance(error, ValueError):
                    print(f"failoverctl: {error}", file=sys.stderr)
                return
            parsed["endpoint"] = parsed["endpoint"] or self.controller.globalopts["endpoint"]
            parsed["args"].endpoint = parsed["endpoint"]
            App(cls.commands).run_with(parsed)

        run.__doc__ = textwrap.dedent(command.__doc__)
        run.__name__ = f"do_{name}"
        setattr(cls, run.__name__, run)


def overview(commands: dict[str, Any]) -> str:
    """Return the help text: every verb with its one line."""
    lines = ["usage: failoverctl [options] verb [names] [options of the verb]", ""]
    lines.append("circusctl with the verbs that know agents. A verb's own help: failoverctl VERB --help")
    lines.append("")
    width = max(map(len, commands))
    lines.extend(f"  {name:{width}}  {commands[name].short}" for name in sorted(commands))
    lines.append("")
    options = _global_parser().format_help().split("options:\n", 1)
    lines.append("options:")
    lines.append(options[-1].rstrip())
    lines.append("")
    lines.append(
        "exit codes: 0 done, 1 not reachable or a check found something, 2 usage, 3 refused or failed"
    )
    return "\n".join(lines)


def main() -> None:
    """The console script."""
    output.prepare()
    import circus_failover.verbs
    import circus_failover.verbs.local  # noqa: F401

    commands = get_commands()
    parsed = parse_arguments(sys.argv[1:], commands)
    args = parsed["args"]
    if hasattr(args, "command"):
        sys.exit(App(commands).run_with(parsed))
    if args.help:
        print(overview(commands))
        sys.exit(DONE)
    if sys.stdin is None:
        sys.exit(_fail("without a verb it is a shell, which needs standard input", USAGE))
    endpoint = args.endpoint or _endpoint()
    try:
        client = CircusClient(endpoint=endpoint, timeout=args.timeout)
    except zmq.ZMQError as error:
        sys.exit(_fail(f"--endpoint {endpoint!r} cannot be used: {error}", USAGE))
    shell = Shell(client, commands)
    shell.controller.globalopts = {**parsed, "endpoint": endpoint}
    print(f"failoverctl {__version__}, {endpoint}; help lists the verbs, Ctrl-D leaves")
    try:
        shell.cmdloop()
    except KeyboardInterrupt:
        print()
    sys.exit(DONE)
