"""Clients that are staged to measure forgetting: the sections ``attack`` and ``hard``, and their rules."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from strategies.client.settings import HardKind
from strategies.core.conditions import only_with, shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings, checked_list, split_list, whole_number_as_text

CONDITIONS = (
    only_with("attack.clients attack.share attack.target", "attack.kind", "backdoor"),
    only_with("hard.clients hard.examples", "hard.kind", "mislabelled", "rare"),
)
"""When keys have an effect."""


class AttackSettings(Settings):
    """An attack by some clients, staged to measure whether forgetting them undoes it.

    Attributes
    ----------
    kind
        ``backdoor`` stamps a trigger on training images and changes their labels; neutral ``none``.
    clients
        Client-ids of the attackers, separated by commas.
    share
        Share of an attacker's examples that is poisoned, in [0, 1]; neutral 0.
    target
        Class that triggered images are labelled with, at least 0.
    """

    kind: Literal["none", "backdoor"] = "none"
    clients: str = ""
    share: float = Field(default=0.8, ge=0, le=1)
    target: int = Field(default=0, ge=0)

    @property
    def client_ids(self) -> tuple[str, ...]:
        """``clients``, parsed."""
        return split_list(self.clients)

    @property
    def attackers(self) -> tuple[str, ...]:
        """Client-ids that poison their data; none without an attack."""
        return () if self.kind == "none" else self.client_ids

    _numbers_are_text = field_validator("clients", mode="before")(whole_number_as_text)
    _clients_parse = field_validator("clients")(checked_list)


class HardSettings(Settings):
    """Honest clients with a few examples that a model can only know by heart: the test of forgetting them.

    Attributes
    ----------
    kind
        ``mislabelled``: examples with the label of another class; ``rare``: with inputs such as the negative
        of an image, which no other client holds; neutral ``none``.
    clients
        Client-ids, separated by commas; none of them attacks.
    examples
        Examples of each of these clients that are made hard, at least 0; neutral 0.
    """

    kind: HardKind = "none"
    clients: str = ""
    examples: int = Field(default=30, ge=0)

    @property
    def client_ids(self) -> tuple[str, ...]:
        """``clients``, parsed; none if no example is made hard."""
        return () if self.kind == "none" else split_list(self.clients)

    _numbers_are_text = field_validator("clients", mode="before")(whole_number_as_text)
    _clients_parse = field_validator("clients")(checked_list)


def check_staged(flat: Mapping[str, Scalar]) -> None:
    """Refuse an attack or hard examples of nobody, and a client that is to be honest and attack.

    Raises
    ------
    BadInput
        Naming the key, what was given and what is allowed.
    """
    if flat["attack.kind"] == "backdoor" and not flat["attack.clients"]:
        raise BadInput('attack.clients: given "", must name at least one with attack.kind = "backdoor"')
    if flat["hard.kind"] == "none":
        return
    hard, attacking = (split_list(str(flat[key])) for key in ("hard.clients", "attack.clients"))
    if not hard:
        raise BadInput(
            f'hard.clients: given "", must name at least one with hard.kind = {shown(flat["hard.kind"])}'
        )
    if both := [client_id for client_id in hard if client_id in attacking]:
        raise BadInput(
            f"hard.clients: given {shown(flat['hard.clients'])}, but attack.clients names {both[0]} too; an "
            "honest client does not attack"
        )
