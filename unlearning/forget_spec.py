"""What a request to forget means for one client: which of its examples it names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from flwr.app import ConfigRecord
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from unlearning.request import ForgetRequest


@dataclass(frozen=True)
class ForgetSpec:
    """Which of one client's examples are to be forgotten.

    Attributes
    ----------
    everything : bool
        All of them.
    classes : tuple of int
        Those with these labels.
    indices : tuple of int
        Those at these positions in the client's own data.
    earlier_classes, earlier_indices : tuple of int
        Those that were forgotten earlier: they are neither to be forgotten nor retained.
    """

    everything: bool = False
    classes: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    earlier_classes: tuple[int, ...] = ()
    earlier_indices: tuple[int, ...] = ()

    def named(self, examples: Examples) -> Tensor:
        """Return which of the examples the request names, shape [n], bool.

        BadInput if an index is outside the data.
        """
        outside = [i for i in (*self.indices, *self.earlier_indices) if not 0 <= i < len(examples)]
        if outside:
            raise BadInput(
                f"the request names example {outside[0]}; this client has examples 0 to {len(examples) - 1}"
            )
        if self.everything:
            return torch.ones(len(examples), dtype=torch.bool)
        return examples.chosen(self.classes, self.indices)

    def unforgotten(self, examples: Examples) -> Tensor:
        """Return which of the examples were not forgotten earlier, shape [n], bool."""
        return ~examples.chosen(self.earlier_classes, self.earlier_indices)

    def split(self, examples: Examples) -> tuple[Examples, Examples]:
        """Return (forget set, retain set); what was forgotten earlier is in neither.

        BadInput if an index is outside the data.
        """
        forget, left = self.named(examples), self.unforgotten(examples)
        return examples.split(forget & left)[0], examples.split(~forget & left)[0]

    def without(self, positions: Collection[int]) -> "ForgetSpec":
        """Return the specification for a client's examples without those at some positions."""
        if not positions:
            return self
        return replace(self, earlier_indices=(*self.earlier_indices, *positions))

    def expected_size(self, num_examples: int) -> int | None:
        """Return how many of a client's examples were not forgotten earlier; None if labels decide it."""
        return None if self.earlier_classes else num_examples - len(set(self.earlier_indices))

    def expected_count(self, num_left: int) -> int | None:
        """Return how many of the remaining examples are to be forgotten; None if labels decide it."""
        if self.everything:
            return num_left
        named = set(self.indices) - set(self.earlier_indices)
        return None if self.classes or (named and self.earlier_classes) else len(named)

    def to_config(self) -> ConfigRecord:
        """Return the record that carries the specification to the client."""
        lists = {wire.GONE_CLASSES: list(self.earlier_classes), wire.GONE_INDICES: list(self.earlier_indices)}
        return ConfigRecord(
            {
                wire.FORGET_ALL: self.everything,
                wire.DROP_CLASSES: list(self.classes),
                wire.DROP_INDICES: list(self.indices),
                **{key: values for key, values in lists.items() if values},
            }
        )

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "ForgetSpec":
        """Read the record back; a missing key names nothing."""
        return ForgetSpec(
            everything=bool(config.get(wire.FORGET_ALL, False)),
            classes=tuple(wire.config_list(config, wire.DROP_CLASSES)),
            indices=tuple(wire.config_list(config, wire.DROP_INDICES)),
            earlier_classes=tuple(wire.config_list(config, wire.GONE_CLASSES)),
            earlier_indices=tuple(wire.config_list(config, wire.GONE_INDICES)),
        )


def spec_for(request: ForgetRequest, client_id: str, earlier: Sequence[ForgetRequest] = ()) -> ForgetSpec:
    """Return which of a client's examples a request names, and which earlier requests did."""
    positions = {p for each in earlier for p in each.samples.get(client_id, ())}
    return ForgetSpec(
        everything=client_id in request.whole_clients,
        classes=request.classes,
        indices=tuple(request.samples.get(client_id, ())),
        earlier_classes=tuple(sorted({label for each in earlier for label in each.classes})),
        earlier_indices=tuple(sorted(positions)),
    )
