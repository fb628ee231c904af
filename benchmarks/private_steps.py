"""What a private step costs: each engine against a plain step of the same model, in turns.

Of the project's cnn, whole and in part, and of a small transformer. Noise is secret in all of them.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.workflows.observer import Observer
from benchmarks.blocks import built_in, kept_neurons
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS
from strategies.core.secret_random import RandomStream
from strategies.layers.privacy.engines import Mechanism, engine_of
from strategies.layers.privacy.settings import EngineName
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import subnetwork

Step = Callable[[], None]
Figures = dict[str, dict[str, float]]

_WIDTH, _HEADS, _LENGTH, _VOCABULARY = 64, 4, 32, 1000
_WARM_UP = 3
_ENGINES: Mapping[str, EngineName] = {"one pass": "one-pass", "ghost": "ghost", "hooks": "hooks"}


class Block(nn.Module):
    """A layer of a transformer: attention and two linear layers, each after a norm and beside a bypass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.query_key_value = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.inner, self.outer = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next states, [n, l, d]."""
        parts = self.query_key_value(self.norm1(x)).unflatten(-1, (3, _HEADS, -1))  # [n, l, 3, h, d/h]
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)  # [n, h, l, d/h]
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.outer(functional.gelu(self.inner(self.norm2(x))))
        return out


class Transformer(nn.Module):
    """Two blocks over embedded tokens and places; the mean of the states gives the class."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(_VOCABULARY, _WIDTH), nn.Embedding(_LENGTH, _WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, NUM_GROUPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, [n, classes], of tokens, [n, l]."""
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        states = self.blocks(self.tokens(tokens) + self.places(places))
        logits: Tensor = self.head(self.norm(states).mean(dim=1))
        return logits


def measure(count: int, batch_size: int, device: torch.device, observer: Observer) -> Mapping[str, Figures]:
    """Return milliseconds of a local step, in turns, and how they relate to a plain step, by model.

    Parameters
    ----------
    count
        Steps that are timed of each contender.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_size, *INPUT_SHAPE, generator=generator).to(device)
    tokens = torch.randint(0, _VOCABULARY, (batch_size, _LENGTH), generator=generator).to(device)
    labels = torch.randint(0, NUM_GROUPS, (batch_size,), generator=generator).to(device)

    def plain(model: nn.Module, inputs: Tensor) -> Step:
        return _plain(model.to(device), inputs, labels)

    def private(engine: EngineName, model: nn.Module, inputs: Tensor) -> Step:
        return _private(engine, model.to(device), inputs, labels)

    of_cnn = {"plain": plain(_cnn(1.0), images)}
    of_cnn |= {name: private(engine, _cnn(1.0), images) for name, engine in _ENGINES.items()}
    of_cnn |= {
        "plain, keep 0.5": plain(_cnn(0.5), images),
        "one pass, keep 0.5": private("auto", _cnn(0.5), images),
    }
    of_transformer = {"plain": plain(Transformer(), tokens)}
    engines: Sequence[EngineName] = ("auto", "ghost", "hooks")
    of_transformer |= {engine: private(engine, Transformer(), tokens) for engine in engines}
    observer.phase("steps", 2 * (count + _WARM_UP))
    return {
        "cnn": _in_turns(of_cnn, count, device, observer),
        "transformer": _in_turns(of_transformer, count, device, observer),
    }


def _in_turns(
    contenders: Mapping[str, Step], count: int, device: torch.device, observer: Observer
) -> Figures:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(count + _WARM_UP):
        for name, step in contenders.items():
            began = _now(device)
            step()
            if turn >= _WARM_UP:
                seconds[name].append(_now(device) - began)
        observer.advance(f"step {turn}")
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    to_plain = {name: value / medians["plain"] for name, value in medians.items() if name != "plain"}
    return {"milliseconds": medians, "to plain": to_plain}


def _now(device: torch.device) -> float:
    """Return seconds; of the processor where one thread works, as others may want the core as well."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _cnn(keep: float) -> nn.Module:
    model = built_in("cnn")
    return subnetwork(model, hidden_groups(model), kept_neurons(model, keep, "random"))


def _sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), 0.1, fused=True)


def _plain(model: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    optimizer = _sgd(model)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _private(name: EngineName, model: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    optimizer = _sgd(model)
    mechanism = Mechanism(1.0, 1.0, len(labels), RandomStream.secret())
    engine = engine_of(name, model, optimizer, mechanism)

    def step() -> None:
        engine.backward(functional.cross_entropy(model(inputs), labels, reduction="none"))
        engine.release()
        optimizer.step()

    return step
