"""The questions of `init`, on a terminal: which homes are accounts, which agents, and whether to go ahead.

It asks with the defaults that `wishes` knows, and decides nothing. All of it goes to standard error, so that
standard output holds results alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm, Prompt

from circus_failover.failure import Failed
from circus_failover.init import wishes
from circus_failover.init.plan import Agent, Wish
from circus_failover.init.survey import Survey
from circus_failover.init.wishes import Options
from circus_failover.settings import ACCOUNT_NAME, Account

_MOST_AGENTS = 500


class Dialogue:
    """One operator at one terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def wish(self, options: Options, survey: Survey) -> Wish:
        """Ask for what the options leave open.

        Raises:
            Failed: an option, or an answer, says what cannot be.
        """
        accounts, new = wishes.chosen_accounts(options, survey, every=True)
        if not options.accounts:
            accounts, new = self._accounts(accounts, new)
        if accounts and not options.second:
            second = self._second(accounts, options.base)
            if second is not None:
                accounts, new = [*accounts, second], new | {second.name}
        choose = wishes.chosen_agents if options.agents else self._agents
        agents = choose(options, accounts)
        return wishes.assembled(options, survey, accounts, new, agents)

    def yes(self, question: str, default: bool = False) -> bool:
        """Ask a question that is answered with yes or no."""
        return bool(Confirm.ask(escape(question), console=self._console, default=default))

    def _ask(self, question: str, default: str) -> str:
        return str(Prompt.ask(escape(question), console=self._console, default=default)).strip()

    def _named(self, question: str, default: str, taken: Sequence[str]) -> str:
        """Ask for an account's name until it is one, and one of its own."""
        while True:
            name = self._ask(question, default)
            if name == "-" or (ACCOUNT_NAME.fullmatch(name) and name not in taken):
                return name
            self._console.print("a name of its own: letters, digits, '.', '_', '-'", markup=False)

    def _accounts(
        self, found: Sequence[Account], new: frozenset[str]
    ) -> tuple[list[Account], frozenset[str]]:
        """Ask of each home whether it is an account, and what that is called."""
        accounts: list[Account] = []
        made: set[str] = set()
        for account in found:
            question = f"{account.runtime} in {account.home}: account name (- is none)"
            name = self._named(question, account.name, [one.name for one in accounts])
            if name != "-":
                accounts.append(replace(account, name=name))
                made |= {name} if account.name in new else set()
        return accounts, frozenset(made)

    def _second(self, accounts: Sequence[Account], base: Path) -> Account | None:
        """Offer the home of a second account, where there is one account."""
        first = accounts[0]
        if len(accounts) > 1 or not self.yes(f"Make a home for a second {first.runtime} account?"):
            return None
        name = self._named("Its account name", f"{first.runtime}-2", [first.name])
        if name == "-":
            return None
        home = self._ask("Its home", str(base / f".{name.removeprefix('.')}"))
        return Account(name, first.runtime, wishes.absolute(home))

    def _agents(self, options: Options, accounts: Sequence[Account]) -> list[Agent]:
        if not accounts and options.program is None:
            wishes.chosen_agents(options, accounts)  # says what is missing
        agents: list[Agent] = []
        number = self._ask("How many agents", "1")
        if not number.isdigit() or not 0 < int(number) <= _MOST_AGENTS:
            raise Failed(f"how many agents {number!r}: expected a number from 1 to {_MOST_AGENTS}")
        folder = options.here
        for count in range(int(number)):
            account = accounts[count % len(accounts)] if accounts else None
            agent = self._agent(Agent(wishes.agent_name(folder, agents), folder, account), agents, accounts)
            agents.append(agent)
            folder = agent.working_dir
        return agents

    def _agent(self, default: Agent, taken: Sequence[Agent], accounts: Sequence[Account]) -> Agent:
        """Ask for one agent until it is one, with a name of its own, in a folder that is there."""
        account = f":{default.account.name}" if default.account is not None else ""
        form = "NAME=DIR:ACCOUNT" if accounts else "NAME=DIR"
        while True:
            text = self._ask(
                f"Agent {len(taken) + 1}, {form}", f"{default.identity}={default.working_dir}{account}"
            )
            try:
                agent = wishes.agent_of(text, accounts)
            except Failed as error:
                self._console.print(str(error), markup=False)
                continue
            if any(agent.identity == one.identity for one in taken):
                self._console.print(f"there is an agent {agent.identity} already", markup=False)
            elif not agent.working_dir.is_dir():
                self._console.print(f"no folder {agent.working_dir}", markup=False)
            else:
                return agent
