"""What the server knows of each client's privacy: what it has spent, and whether it refused."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_REFUSED = "refused: "


@dataclass
class Accounts:
    """The clients' accounts as the server knows them.

    Parameters
    ----------
    epsilons, noise
        Client-id -> ε so far and noise multiplier, as the client last reported or the server has counted.
    refusals
        Client-id -> in how many rounds it refused, and why last.
    unreported
        Client-id -> rounds since its last report in which it was asked and did not answer; it may have spent
        more than `epsilons` says.
    attempts
        Client-id -> rounds in which it was asked, those of interruptions included.
    """

    epsilons: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    unreported: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    def asked(self, client_ids: Iterable[str]) -> None:
        """Count an attempt for each client that a round asks."""
        for client_id in client_ids:
            self.unreported[client_id] = self.unreported.get(client_id, 0) + 1
            self.attempts[client_id] = self.attempts.get(client_id, 0) + 1

    def reported(self, client_id: str, epsilon: float, noise_multiplier: float) -> None:
        """Note what a client reports."""
        self.epsilons[client_id], self.noise[client_id] = epsilon, noise_multiplier
        self.unreported.pop(client_id, None)

    def failed(self, client_id: str, reason: str) -> None:
        """Note a fault; one that is no refusal leaves open whether the client has spent something."""
        if reason.startswith(_REFUSED):
            count, _ = self.refusals.get(client_id, (0, ""))
            self.refusals[client_id] = (count + 1, reason.removeprefix(_REFUSED))
            self.unreported.pop(client_id, None)

    def to_json(self) -> dict[str, Any]:
        """Return the accounts as plain data, without the attempts, which a checkpoint undercounts."""
        refusals = {client_id: list(entry) for client_id, entry in self.refusals.items()}
        return {
            "epsilons": self.epsilons,
            "noise": self.noise,
            "refusals": refusals,
            "unreported": self.unreported,
        }

    def take(self, other: "Accounts") -> None:
        """Take up other accounts in place of these, in place."""
        self.epsilons, self.noise = other.epsilons, other.noise
        self.refusals, self.unreported = other.refusals, other.unreported

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Accounts":
        """Return the accounts of `to_json`."""
        refusals = {client_id: (int(n), str(why)) for client_id, (n, why) in document["refusals"].items()}
        epsilons = {i: math.inf if e is None else float(e) for i, e in document["epsilons"].items()}
        return Accounts(epsilons, dict(document["noise"]), refusals, dict(document["unreported"]))
