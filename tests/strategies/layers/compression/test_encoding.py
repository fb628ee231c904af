"""Codecs by hand, against slow versions, and over 10,000 draws: unbiased, or contracting."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.layers.compression.codec import Codec, Shapes
from strategies.layers.compression.encoding import decode, encode

SHAPES = ((6, 8), (8,), (4, 3, 3))
SIZE = 48 + 8 + 36
CHAINS = [
    "+".join(filter(None, pair))
    for pair in product(["", "top-k", "random-k", "low-rank"], ["", "int8", "int4", "sign"])
    if any(pair) and pair not in {("low-rank", "int4"), ("low-rank", "sign")}
]
UNBIASED = ["int8", "int4", "random-k+int4"]
DRAWS = 10_000


def draw(seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.randn(size, generator=torch_generator(seed, "test")) ** 3


def through(vector: Tensor, codec: Codec, seed: int = 1, shapes: Shapes = SHAPES) -> Tensor:
    return decode(encode(vector, shapes, codec, seed), shapes)


def test_top_k_by_hand() -> None:
    """Of 1, −5, 0, 3, the two largest are −5 and 3: 10 bytes of head, 5 of code, its bits, 8 of numbers."""
    vector = torch.tensor([1.0, -5.0, 0.0, 3.0])
    payload = encode(vector, ((4,),), Codec("top-k", keep=0.5), 0)
    assert decode(payload, ((4,),)).tolist() == [0.0, -5.0, 0.0, 3.0]
    assert len(payload) <= 10 + 5 + 2 + 8


def test_quantisation_by_hand() -> None:
    """With 7 levels of 7 / 7: 7, −1.4 and 0.6 are 7, −1 and 1 to the nearest."""
    vector = torch.tensor([7.0, -1.4, 0.6, 0.0])
    assert through(vector, Codec(form="int4"), shapes=((4,),)).tolist() == [7.0, -1.0, 1.0, 0.0]


def test_sign_by_hand() -> None:
    """The mean absolute value of 3, −1, 0, 0 is 1."""
    vector = torch.tensor([3.0, -1.0, 0.0, 0.0])
    assert through(vector, Codec(form="sign"), shapes=((4,),)).tolist() == [1.0, -1.0, 1.0, 1.0]


def test_a_matrix_of_low_rank_comes_back() -> None:
    left, right = draw(1, 12).view(6, 2), draw(2, 16).view(2, 8)
    matrix = left @ right
    back = through(matrix.reshape(-1), Codec("low-rank", rank=2), shapes=((6, 8),))
    torch.testing.assert_close(back.view(6, 8), matrix, rtol=1e-4, atol=1e-4)


def test_low_rank_is_near_the_best_there_is() -> None:
    matrix = draw(3, 48).view(6, 8)
    best = math.sqrt(float((torch.linalg.svdvals(matrix)[2:] ** 2).sum()))
    error = float(
        torch.linalg.vector_norm(
            through(matrix.reshape(-1), Codec("low-rank", rank=2), shapes=((6, 8),)).view(6, 8) - matrix
        )
    )
    assert best * 0.999 <= error <= 1.3 * best


def slow_top_k(vector: Tensor, keep: float) -> list[float]:
    count = math.ceil(keep * len(vector))
    kept = sorted(range(len(vector)), key=lambda i: -abs(float(vector[i])))[:count]
    return [float(v) if i in kept else 0.0 for i, v in enumerate(vector)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 400), st.floats(0.01, 0.99))
def test_top_k_equals_a_slow_one(seed: int, size: int, keep: float) -> None:
    vector = draw(seed, size)
    assert through(vector, Codec("top-k", keep=keep), shapes=((size,),)).tolist() == slow_top_k(vector, keep)


@pytest.mark.parametrize("chain", UNBIASED)
def test_the_mean_of_many_draws_is_the_vector(chain: str) -> None:
    """Every entry's mean is within five standard errors; none is so small that it is hardly ever drawn."""
    vector, codec = (
        draw(4, 24).sign() * (draw(4, 24).abs() + 0.3),
        Codec.parse(chain, keep=0.25, unbiased=True),
    )
    draws = torch.stack([through(vector, codec, seed, ((24,),)) for seed in range(DRAWS)]).double()
    error = (draws.mean(dim=0) - vector).abs()
    standard = draws.std(dim=0) / math.sqrt(DRAWS)
    assert bool((error <= 5 * standard + 1e-5).all())
    assert float(standard.sum()) > 0


@pytest.mark.parametrize("chain", CHAINS)
def test_with_feedback_every_chain_contracts(chain: str) -> None:
    """Over vectors of ever other shape: the mean of ‖x − C(x)‖² / ‖x‖² is below 1; ties aside, so is each."""
    codec = Codec.parse(chain, keep=0.25, rank=2)
    ratios = []
    for seed in range(DRAWS // 50):
        vector = draw(seed)
        left = float((vector - through(vector, codec, seed)).square().sum())
        ratios.append(left / float(vector.square().sum()))
    assert sum(ratios) / len(ratios) < 1 - 1e-4
    assert max(ratios) < 1 + 1e-6


def test_random_k_contracts_by_its_share_over_10_000_draws() -> None:
    vector, codec = draw(5, 40), Codec("random-k", keep=0.25)
    left = [float((vector - through(vector, codec, seed, ((40,),))).square().sum()) for seed in range(DRAWS)]
    assert sum(left) / DRAWS / float(vector.square().sum()) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("text", ["identity", "top-k", "random-k"])
def test_neutral_codecs_give_back_every_bit(text: str) -> None:
    codec = Codec.parse(text, keep=1.0)
    assert codec.is_neutral(SHAPES)
    assert through(draw(), codec).equal(draw())


def test_full_rank_is_neutral_and_a_lower_one_is_not() -> None:
    full, low = Codec("low-rank", rank=8), Codec("low-rank", rank=2)
    assert full.is_neutral(SHAPES)
    assert through(draw(), full).equal(draw())
    assert not low.is_neutral(SHAPES)
    assert not through(draw(), low).equal(draw())


def test_sizes_are_those_of_the_arithmetic() -> None:
    """100,000 numbers: int8 a byte each and a scale per 512; 1 % in int4 half a byte and 8.1 bits."""
    vector = draw(6, 100_000)
    scales = 4 * math.ceil(100_000 / 512)
    assert len(encode(vector, ((100_000,),), Codec(form="int8"), 0)) == 10 + scales + 100_000
    assert len(encode(vector, ((100_000,),), Codec(form="sign"), 0)) == 10 + scales + 12_500
    entropy = 100_000 * (-0.01 * math.log2(0.01) - 0.99 * math.log2(0.99)) / 8
    sparse = len(encode(vector, ((100_000,),), Codec("top-k", "int4", keep=0.01), 0))
    assert entropy + 500 < sparse < 1.03 * entropy + 500 + 8 + 15


def test_randomness_is_that_of_the_seed() -> None:
    codec = Codec.parse("random-k+int4", keep=0.5, unbiased=True)
    assert encode(draw(), SHAPES, codec, 3) == encode(draw(), SHAPES, codec, 3)
    assert encode(draw(), SHAPES, codec, 3) != encode(draw(), SHAPES, codec, 4)


@pytest.mark.parametrize("text", ["", "gzip", "int8+top-k", "top-k+random-k", "int8+int4", "top-k+", "none"])
def test_what_is_no_codec_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as top-k\\+int8"):
        Codec.parse(text)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["identity", *CHAINS]),
    st.integers(0, 200),
    st.binary(min_size=1, max_size=4),
    st.booleans(),
)
def test_damaged_payloads_raise_or_give_a_vector(chain: str, place: int, junk: bytes, cut: bool) -> None:
    payload = encode(draw(), SHAPES, Codec.parse(chain, keep=0.3, rank=2), 0)
    at = place % len(payload)
    damaged = payload[:at] if cut else payload[:at] + junk + payload[at + len(junk) :]
    try:
        vector = decode(damaged, SHAPES)
    except ValueError:
        return
    assert vector.shape == (SIZE,)


@pytest.mark.parametrize("form", ["int4", "sign"])
def test_factors_in_few_bits_are_refused(form: str) -> None:
    with pytest.raises(ValueError, match="so few bits"):
        Codec.parse(f"low-rank+{form}")
