"""What a client has spent: kept in its own state from round to round, and in a file of its own if it wants.

A client writes down what a round will cost before it trains, so that the cost counts whatever happens to its
answer. What is written down is all it needs: noise multipliers, sample rates and steps.

Two processes may train on one client's data at once, in two runs: a process that reads the file to pay holds
it until the payment is in it.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from flwr.app import ConfigRecord, RecordDict

from strategies.core.errors import BadInput, RunCorrupt
from strategies.layers.privacy.accounting import History, Spend, extended
from strategies.runs import files

STATE = "privacy"
"""Name of the record in ``context.state``."""


@dataclass(frozen=True)
class Account:
    """A client's past.

    Parameters
    ----------
    attempts
        How many rounds of this run have reached the client, those that it refused included.
    noise_multiplier
        What was solved from the budget in the first of them; 0 before.
    asked
        ε of answers with noise of their own and δ = 0, such as those of federated analytics; it adds to that
        of the history.
    """

    history: History = ()
    attempts: int = 0
    noise_multiplier: float = 0.0
    asked: float = 0.0

    def after(self, cost: History, noise_multiplier: float, attempts: int = 1) -> "Account":
        """Return the account after the same cost in some rounds."""
        if attempts < 1:
            return self
        history = with_rounds(self.history, cost, attempts)
        return Account(history, self.attempts + attempts, noise_multiplier, self.asked)


def with_rounds(history: History, cost: History, rounds: int) -> History:
    """Return a history with the same cost added for some rounds."""
    for spend in cost if rounds > 0 else ():
        history = extended(history, replace(spend, steps=spend.steps * rounds))
    return history


def read_account(state: RecordDict) -> Account:
    """Return the account in a client's state; an empty one where there is none."""
    if STATE not in state.config_records:
        return Account()
    record = state.config_records[STATE]
    noise, rates, steps = (_numbers(record[key]) for key in ("noise-multipliers", "sample-rates", "steps"))
    history = tuple(Spend(n, rate, int(count)) for n, rate, count in zip(noise, rates, steps, strict=True))
    asked = float(str(record.get("asked-epsilon", 0.0)))
    return Account(history, int(str(record["attempts"])), float(str(record["noise-multiplier"])), asked)


def _numbers(value: object) -> list[float]:
    return [float(number) for number in value] if isinstance(value, list) else []


def write_account(state: RecordDict, account: Account) -> None:
    """Replace the account in a client's state."""
    state[STATE] = ConfigRecord(
        {
            "noise-multipliers": [spend.noise_multiplier for spend in account.history],
            "sample-rates": [spend.sample_rate for spend in account.history],
            "steps": [spend.steps for spend in account.history],
            "attempts": account.attempts,
            "noise-multiplier": account.noise_multiplier,
            "asked-epsilon": account.asked,
        }
    )


def plain_name(client_id: str) -> str:
    """Return a client-id as it can stand in a file's name.

    Examples
    --------
    >>> plain_name("ward-3/b")
    'ward-3%2fb'
    """
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in client_id)


@final
@dataclass(frozen=True)
class LedgerFile:
    """A client's own file, in which what was spent adds up over runs.

    Parameters
    ----------
    path
        Of the file; it need not exist.
    """

    path: Path
    _format: str = field(default="lethe-privacy-ledger", init=False)

    @staticmethod
    def of(folder: str, client_id: str) -> "LedgerFile | None":
        """Return a client's file in a folder; None where there is no folder."""
        if not folder:
            return None
        return LedgerFile(Path(folder).expanduser() / f"{plain_name(client_id)}.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file against other processes; wait for one that has it.

        Raises
        ------
        BadInput
            If the folder is not there.
        LetheError
            If the file cannot be locked; nothing may be spent then.
        """
        self._require_folder()
        with files.locked(self.path):
            yield

    def _require_folder(self) -> None:
        if not self.path.parent.is_dir():
            raise BadInput(f"privacy.ledger: {self.path.parent} is no folder")

    def read(self) -> History:
        """Return what was spent in steps; nothing where there is no file. Errors as in `read_all`."""
        return self.read_all()[0]

    def read_all(self) -> tuple[History, float]:
        """Return what was spent in steps, and the ε of answers besides; nothing where there is no file.

        Raises
        ------
        RunCorrupt
            If the file is damaged: nothing may be spent then.
        """
        if not self.path.exists():
            return (), 0.0
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["format"] != self._format:
                raise ValueError("another format")
            asked = float(document.get("asked-epsilon", 0.0))
            if not 0 <= asked < math.inf:
                raise ValueError("'asked-epsilon' is no number >= 0")
            history = tuple(
                Spend(float(noise), float(rate), int(steps)) for noise, rate, steps in document["history"]
            )
            return history, asked
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunCorrupt(f"{self.path}: the privacy ledger cannot be read: {error}") from None

    def write(self, history: History, asked: float = 0.0) -> None:
        """Replace what was spent in steps and in answers, on the disk before this returns.

        Raises
        ------
        LetheError
            If the disk does not take it; nothing may be spent then.
        """
        self._require_folder()
        rows = [[s.noise_multiplier, s.sample_rate, s.steps] for s in history]
        document = {"format": self._format, "history": rows}
        files.write_json(self.path, document | ({"asked-epsilon": asked} if asked else {}))
