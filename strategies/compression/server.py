"""The server's side: the model goes out as a coded difference, updates come back encoded.

Down (Gruntkowska, Tyurin, Richtárik, EF21-P, arXiv 2209.15218): all clients hold, as far as they were asked,
the same copy y of the model x, and get the encoded rest,

    y_t = y_{t−1} + C(x_t − y_{t−1}),

so that what one round leaves out is part of the next. A client that missed rounds gets the differences of all
of them; one whose version is unknown, or that this would cost more, gets y_t itself. Clients train from y_t,
and their updates are added to x_t. With a neutral codec y_t is x_t, and the model itself travels.

What the wrapped strategy, its guard and its log see is a dense reply that stands for the decoded update.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies import wire
from strategies.compression.client import payloads_in
from strategies.compression.coding import decode, encode
from strategies.compression.settings import CompressionSettings
from strategies.seeds import derive_seed
from strategies.wrapper import StrategyWrapper

_HELD = "held/"


@final
class Copies:
    """The copy of the model that clients hold, its version, and who holds which.

    Parameters
    ----------
    settings
        Of the run.
    seed
        The run's.
    link
        Names the training; versions of another one do not count.
    """

    def __init__(self, settings: CompressionSettings, seed: int, link: str) -> None:
        self._codec = settings.down
        self._seed = seed
        self.link = link
        self.version = 0
        self.model: Tensor | None = None
        self.held: dict[str, int] = {}
        self._payloads: dict[int, bytes] = {}

    def advance(self, flat: Tensor, layout: wire.Layout) -> Tensor:
        """Return the copy that clients shall train from, as near to the model as one payload brings it."""
        self.version += 1
        if self.model is None or self._codec.is_neutral(layout.shapes):
            self.model = flat
            self._payloads.clear()
            return flat
        seed = derive_seed(self._seed, "down", self.version)
        payload = encode(flat - self.model, layout.shapes, self._codec, seed)
        self.model = self.model + decode(payload, layout.shapes)
        self._payloads[self.version] = payload
        while sum(map(len, self._payloads.values())) > 4 * layout.size:
            del self._payloads[next(iter(self._payloads))]
        return self.model

    def since(self, client_id: str) -> list[bytes] | None:
        """Return the payloads that bring a client up to date; None if it needs the model."""
        held = self.held.get(client_id)
        if held is None:
            return None
        missing = range(held + 1, self.version + 1)
        if not all(version in self._payloads for version in missing):
            return None
        return [self._payloads[version] for version in missing]

    def memory(self) -> dict[str, Tensor]:
        """Return all that goes into a checkpoint; the payloads of earlier rounds do not."""
        tensors = {_HELD + i: torch.tensor(version) for i, version in self.held.items()}
        tensors["version"] = torch.tensor(self.version)
        tensors["link"] = torch.from_numpy(np.frombuffer(self.link.encode(), dtype=np.uint8).copy())
        return tensors if self.model is None else tensors | {"model": self.model}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self.link = bytes(tensors["link"].numpy()).decode()
        self.version, self.model = int(tensors["version"]), tensors.get("model")
        names = (name for name in tensors if name.startswith(_HELD))
        self.held = {name.removeprefix(_HELD): int(tensors[name]) for name in names}


@final
class CompressedStrategy(StrategyWrapper):
    """Encode what goes out for training, decode what comes back; everything else passes.

    It belongs outside the guard, which then checks what was decoded.

    Parameters
    ----------
    inner
        The guarded strategy.
    copies
        What clients hold.
    names
        Node id -> client-id, kept up to date by its owner.
    reject
        Told of each reply that cannot be decoded.
    mask
        Which parameters may differ from zero, shape [P], bool; None: all.
    """

    memory_name = "compression"

    def __init__(
        self,
        inner: Strategy,
        copies: Copies,
        names: Mapping[int, str],
        reject: Callable[[Message, str], None],
        mask: Tensor | None = None,
    ) -> None:
        super().__init__(inner)
        self._copies = copies
        self._names = names
        self._reject = reject
        self._mask = mask
        self._flat = self._start = torch.zeros(0)
        self._layout = wire.Layout((), ())
        self._withheld = 0

    def memory(self) -> dict[str, Tensor]:
        """Return what must be in a checkpoint."""
        return self._copies.memory()

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self._copies.recall(tensors)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send differences to those who hold an earlier copy, and the copy itself to the others."""
        self._layout = wire.layout_of(arrays)
        self._flat = wire.flat_of(arrays, self._layout)
        self._start = self._copies.advance(self._flat, self._layout)
        whole = arrays if self._start is self._flat else wire.FlatRecord(self._start, self._layout)
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message in messages:
            if message.metadata.message_type == wire.TRAIN:
                message.content = self._coded(message, whole)
        return messages

    def _coded(self, message: Message, whole: ArrayRecord) -> RecordDict:
        client_id = self._names[message.metadata.dst_node_id]
        told = ConfigRecord(dict(message.content.config_records[wire.CONFIG]))
        told[wire.LINK], told[wire.VERSION] = self._copies.link, self._copies.version
        payloads = self._copies.since(client_id)
        held = self._copies.held.pop(client_id, 0)  # Until it answers, nobody knows what it has
        if payloads is None or sum(map(len, payloads)) >= 4 * self._layout.size:
            return RecordDict({**message.content, wire.ARRAYS: whole, wire.CONFIG: told})
        told[wire.BASE_VERSION] = held
        others = {n: r for n, r in message.content.items() if n not in {wire.ARRAYS, wire.CONFIG}}
        return RecordDict({wire.CODED: ConfigRecord({wire.PAYLOAD: payloads}), wire.CONFIG: told, **others})

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies one at a time; say how many updates were withheld."""
        self._withheld = 0
        arrays, metrics = self.inner.aggregate_train(server_round, self._decoded(replies))
        if metrics is not None and self._withheld:
            metrics[wire.WITHHELD] = self._withheld
        return arrays, metrics

    def _decoded(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            if reply.has_content():
                config = reply.content.config_records.get(wire.CONFIG, ConfigRecord())
                if config.get(wire.VERSION) == self._copies.version:
                    self._copies.held[self._names[reply.metadata.src_node_id]] = self._copies.version
                try:
                    self._make_dense(reply, withheld=bool(config.get(wire.WITHHELD, False)))
                except (ValueError, TypeError, OSError, EOFError) as error:
                    self._reject(reply, str(error))
                    continue
            yield reply

    def _make_dense(self, reply: Message, withheld: bool) -> None:
        """Put the model that the update stands for into a reply."""
        content = reply.content
        if withheld:
            self._withheld += 1
            flat = self._flat
        elif wire.CODED in content:
            update = sum(
                (decode(payload, self._layout.shapes) for payload in payloads_in(content)),
                start=torch.zeros(self._layout.size),
            )
            flat = self._flat + (update if self._mask is None else update * self._mask)
        elif wire.ARRAYS in content and self._start is not self._flat:
            flat = self._flat + (wire.flat_of(content.array_records[wire.ARRAYS], self._layout) - self._start)
        else:
            return
        others = {n: r for n, r in content.items() if n not in {wire.ARRAYS, wire.CODED}}
        reply.content = RecordDict({wire.ARRAYS: wire.FlatRecord(flat, self._layout), **others})
