"""Random generators derived from the run's seed and the scope they serve, never from global state.

A generator is a function of (seed, scope) alone: the same client in the same round draws the same numbers
whatever ran before it, in whichever process, and in whichever order.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *scope: int | str) -> int:
    """Mix a seed and a scope into 63 bits (SHA-256 of their text).

    Parameters
    ----------
    scope
        What the generator is for, for example ``("client", "7", "round", 3)``.

    Returns
    -------
    int
        In [0, 2**63).

    Examples
    --------
    >>> derive_seed(0, "client", "7") == derive_seed(0, "client", "7")
    True
    >>> derive_seed(0, "client", "7") == derive_seed(0, "client", 7)
    False
    """
    text = repr((int(seed), *scope)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def torch_generator(seed: int, *scope: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator for the scope (see `derive_seed`)."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, *scope))
    return generator


def varying(generator: torch.Generator) -> torch.Generator:
    """Return a generator for the variation of training inputs, which draws nothing from the given one."""
    return torch_generator(generator.initial_seed(), "variation")


def numpy_generator(seed: int, *scope: int | str) -> np.random.Generator:
    """Return a numpy generator for the scope (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *scope))


@contextmanager
def seeded_layers(generator: torch.Generator, device: str | torch.device = "cpu") -> Iterator[None]:
    """Make layers that draw from torch's global generator, such as dropout, draw from a given one.

    The global generator's state is put back afterwards, so it has no effect and is not changed.

    Parameters
    ----------
    generator
        On the CPU; one number is drawn from it.
    device
        Where the layers compute; without an index, the current device of its type.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    place = torch.device(device)
    gpus = [torch.empty(0, device=place).device.index] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for gpu in gpus:
            torch.cuda.set_rng_state(torch.Generator(f"cuda:{gpu}").manual_seed(seed).get_state(), gpu)
        yield


@final
@dataclass(frozen=True, eq=False)
class GlobalState:
    """What torch's global generators will draw next: of the CPU, and of the present GPU if one is used."""

    cpu: Tensor
    gpu: Tensor | None

    @staticmethod
    def now() -> "GlobalState":
        """Return the present state."""
        gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        return GlobalState(torch.random.get_rng_state(), gpu)

    def put_back(self) -> None:
        """Have the generators draw from here."""
        torch.random.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)
