"""The privacy that a run's clients have spent, in its training and in all later trainings.

Two files in the run's folder: the clients that each round has asked, written before anything is sent, and the
accounts as the last round left them. A pruned run shares the files of the run it was made from, as it has the
same data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from app.forgettings.folder import unpruned
from strategies.layers.privacy.server import prior_attempts, repeated_rounds
from strategies.layers.privacy.settings import PrivacySettings
from strategies.runs import files
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import append_line, read_lines

ACCOUNTS = "privacy-accounts.json"
"""Name of the file with the accounts as the last round of any training left them."""
ATTEMPTS = "privacy-attempts.jsonl"
"""Name of the file with the clients that each round has asked, interrupted rounds included."""


@final
@dataclass(frozen=True)
class RunAccounts:
    """The privacy accounts of a run's clients.

    `training` names the current training: the run itself by its name; empty: a later one. `completed_rounds`
    are those of the run, if it goes on.
    """

    folder: RunFolder
    settings: PrivacySettings
    training: str = ""
    completed_rounds: int = 0

    def known(self) -> Mapping[str, Any] | None:
        """Return the accounts as the last round left them; None before the first round."""
        if (self._home / ACCOUNTS).exists():
            return files.read_json(self._home / ACCOUNTS)
        checkpoint = self.folder.read_checkpoint()  # A run of an earlier version has them there
        return None if checkpoint is None else checkpoint.extra.get("privacy")

    def inherited(self) -> Mapping[str, Any] | None:
        """Return the accounts that a new run begins with: those of the run it is pruned from; else None."""
        return None if self._home == self.folder.path.absolute() else self.known()

    def attempts(self) -> Mapping[str, int]:
        """Return in how many rounds each client was asked, including rounds that an interruption undid."""
        lines = read_lines(self._home / ATTEMPTS)
        return prior_attempts(lines, self.settings, self.completed_rounds, self.training)

    def repeats(self) -> int:
        """Return how many rounds of this training were asked, interrupted, and are counted again."""
        own = [
            line
            for line in read_lines(self._home / ATTEMPTS)
            if line.get("training", self.training) == self.training
        ]
        return repeated_rounds(own, self.settings, self.completed_rounds)

    def asked(self, server_round: int, client_ids: list[str]) -> None:
        """Record on disk, before anything is sent, the clients that a round asks."""
        line = {"round": server_round, "clients": client_ids, "training": self.training}
        append_line(self._home / ATTEMPTS, line)

    def spent(self, document: Mapping[str, Any]) -> None:
        """Record the accounts after a round."""
        files.write_json(self._home / ACCOUNTS, dict(document))

    @property
    def _home(self) -> Path:
        return unpruned(self.folder).path.absolute()
