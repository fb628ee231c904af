"""The server's side: the model goes out as a coded difference, updates come back encoded.

Down (Gruntkowska, Tyurin, Richtárik, EF21-P, arXiv 2209.15218): all clients hold, as far as they were asked,
the same copy y of the model x, and get the encoded rest,

    y_t = y_{t−1} + C(x_t − y_{t−1}),

so that what one round leaves out is part of the next. A client that missed rounds gets the differences of all
of them; one whose version is unknown, or that this would cost more, gets y_t itself. Clients train from y_t,
and their updates are added to x_t. With a neutral codec y_t is x_t, and the model itself travels. Every
message says, too, which of the client's replies was the last that counted: what that left out is its
residual.

What the wrapped strategy, its guard and its log see is a dense reply that stands for the decoded update.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.seeds import derive_seed
from strategies.layers.compression.client import payloads_in
from strategies.layers.compression.encoding import decode, encode
from strategies.layers.compression.settings import CompressionSettings
from strategies.server.wrapper import StrategyWrapper

_CLIENT_VERSION, _USED = "held/", "used/"
_VERSION, _FLAT, _START = "version/", "flat/", "start/"


@dataclass(frozen=True, eq=False)
class _Sent:
    """What the clients that were asked in a round were sent.

    Parameters
    ----------
    version
        Of the copy.
    flat, start
        The model, and the copy of it that they train from; the same where models travel as they are.
    """

    version: int
    flat: Tensor
    start: Tensor


@final
class Copies:
    """The copy of the model on the clients, its version, and the version that each client has.

    Parameters
    ----------
    link
        Names the training; versions of another one do not count.
    """

    def __init__(self, settings: CompressionSettings, seed: int, link: str) -> None:
        self._codec = settings.down
        self._seed = seed
        self.link = link
        self.version = 0
        self.model: Tensor | None = None
        self.versions: dict[str, int] = {}
        self.used: dict[str, int] = {}
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
        version = self.versions.get(client_id)
        if version is None:
            return None
        missing = range(version + 1, self.version + 1)
        if not all(number in self._payloads for number in missing):
            return None
        return [self._payloads[number] for number in missing]

    def memory(self) -> dict[str, Tensor]:
        """Return all that goes into a checkpoint; the payloads of earlier rounds do not."""
        tensors = {_CLIENT_VERSION + i: torch.tensor(version) for i, version in self.versions.items()}
        tensors |= {_USED + i: torch.tensor(version) for i, version in self.used.items()}
        tensors["version"] = torch.tensor(self.version)
        tensors["link"] = torch.from_numpy(np.frombuffer(self.link.encode(), dtype=np.uint8).copy())
        return tensors if self.model is None else tensors | {"model": self.model}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self.link = bytes(tensors["link"].numpy()).decode()
        self.version, self.model = int(tensors["version"]), tensors.get("model")
        self.versions, self.used = _versions(tensors, _CLIENT_VERSION), _versions(tensors, _USED)


def _versions(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(tensors[name]) for name in tensors if name.startswith(prefix)}


@final
class CompressedStrategy(StrategyWrapper):
    """Encode what goes out for training, decode what comes back; everything else passes.

    It belongs outside the guard, which then checks what was decoded.

    Parameters
    ----------
    inner
        The guarded strategy.
    names
        Node id -> client-id, kept up to date by its owner.
    reject
        Told of each reply that cannot be decoded.
    accepted
        Client-ids of the round's replies that the guard let through, kept up to date by its owner.
    mask
        Which parameters may differ from zero, shape [P], bool; None: all.
    asynchronous
        Whether replies may be to messages of earlier rounds, and those that say that their update is withheld
        are no updates; otherwise they stand for an update of zero.
    """

    memory_name = "compression"

    def __init__(
        self,
        inner: Strategy,
        copies: Copies,
        names: Mapping[int, str],
        reject: Callable[[Message, str], None],
        accepted: Sequence[str],
        *,
        mask: Tensor | None = None,
        asynchronous: bool = False,
    ) -> None:
        super().__init__(inner)
        self._accepted = accepted
        self._answers: dict[str, int] = {}
        self._copies = copies
        self._names = names
        self._reject = reject
        self._mask = mask
        self._asynchronous = asynchronous
        self._sent: dict[int, _Sent] = {}
        self._asked: dict[str, int] = {}
        self._layout = wire.Layout((), ())
        self._withheld = 0

    def memory(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint, with the models of earlier rounds that clients still work on."""
        tensors = self._copies.memory()
        for server_round in sorted(set(self._asked.values()) & set(self._sent)) if self._asynchronous else ():
            sent = self._sent[server_round]
            tensors[f"{_VERSION}{server_round}"] = torch.tensor(sent.version)
            tensors[f"{_FLAT}{server_round}"] = sent.flat
            tensors[f"{_START}{server_round}"] = sent.start
        return tensors

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self._copies.recall(tensors)
        for name in (name for name in tensors if name.startswith(_VERSION)):
            number = name.removeprefix(_VERSION)
            flat, start = tensors[_FLAT + number], tensors[_START + number]
            start = flat if start.equal(flat) else start
            self._sent[int(number)] = _Sent(int(tensors[name]), flat, start)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send differences to those who hold an earlier copy, and the copy itself to the others."""
        self._layout = wire.layout_of(arrays)
        sent = self._sent.get(server_round) or self._advanced(server_round, arrays)
        whole = arrays if sent.start is sent.flat else wire.FlatRecord(sent.start, self._layout)
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        for message in messages:
            self._asked[self._names[message.metadata.dst_node_id]] = server_round
            if message.metadata.message_type == wire.TRAIN:
                message.content = self._coded(message, whole, sent)
        return messages

    def _advanced(self, server_round: int, arrays: ArrayRecord) -> _Sent:
        """Bring the copy nearer to the round's model; forget the rounds without open replies."""
        awaited = set(self._asked.values()) if self._asynchronous else set()
        self._sent = {number: sent for number, sent in self._sent.items() if number in awaited}
        flat = wire.flat_of(arrays, self._layout)
        start = self._copies.advance(flat, self._layout)
        self._sent[server_round] = _Sent(self._copies.version, flat, start)
        return self._sent[server_round]

    def _coded(self, message: Message, whole: ArrayRecord, sent: _Sent) -> RecordDict:
        client_id = self._names[message.metadata.dst_node_id]
        config = ConfigRecord(dict(message.content.config_records[wire.CONFIG]))
        config[wire.LINK], config[wire.VERSION] = self._copies.link, sent.version
        if used := self._copies.used.get(client_id):
            config[wire.USED_VERSION] = used
        payloads = self._copies.since(client_id)
        version = self._copies.versions.pop(client_id, 0)  # Its version is unknown until it answers
        if payloads is None or sum(map(len, payloads)) >= 4 * self._layout.size:
            return RecordDict({**message.content, wire.ARRAYS: whole, wire.CONFIG: config})
        config[wire.BASE_VERSION] = version
        others = {n: r for n, r in message.content.items() if n not in {wire.ARRAYS, wire.CONFIG}}
        return RecordDict({wire.CODED: ConfigRecord({wire.PAYLOAD: payloads}), wire.CONFIG: config, **others})

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies one at a time; say how many updates were withheld."""
        self._withheld = 0
        self._answers.clear()
        arrays, metrics = self.inner.aggregate_train(server_round, self._decoded(replies))
        if arrays is not None:
            self._copies.used.update({i: self._answers[i] for i in self._accepted if i in self._answers})
        if self._withheld:
            metrics = MetricRecord({**(metrics or {}), wire.WITHHELD: self._withheld})
        return arrays, metrics

    def _decoded(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            if reply.has_content():
                client_id = self._names[reply.metadata.src_node_id]
                sent = self._sent[self._asked.pop(client_id)]
                config = reply.content.config_records.get(wire.CONFIG, ConfigRecord())
                if config.get(wire.VERSION) == sent.version:
                    self._copies.versions[client_id] = sent.version
                withheld = bool(config.get(wire.WITHHELD, False))
                self._withheld += withheld
                if withheld and self._asynchronous:
                    self._copies.used[client_id] = sent.version
                    continue
                self._answers[client_id] = sent.version
                try:
                    self._make_dense(reply, sent, withheld)
                except ValueError as error:
                    self._reject(reply, str(error))
                    continue
            yield reply

    def _make_dense(self, reply: Message, sent: _Sent, withheld: bool) -> None:
        """Put the model that the update stands for into a reply."""
        content = reply.content
        if withheld:
            flat = sent.flat
        elif wire.CODED in content:
            update = sum(
                (decode(payload, self._layout.shapes) for payload in payloads_in(content)),
                start=torch.zeros(self._layout.size),
            )
            flat = sent.flat + (update if self._mask is None else update * self._mask)
        elif wire.ARRAYS in content and sent.start is not sent.flat:
            flat = sent.flat + (wire.flat_of(content.array_records[wire.ARRAYS], self._layout) - sent.start)
        else:
            return
        others = {n: r for n, r in content.items() if n not in {wire.ARRAYS, wire.CODED}}
        reply.content = RecordDict({wire.ARRAYS: wire.FlatRecord(flat, self._layout), **others})
