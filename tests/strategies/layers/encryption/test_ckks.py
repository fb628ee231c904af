"""The scheme: sums within its precision, damage refused, noise that hides CKKS' own errors."""

from collections.abc import Callable

import pytest
import tenseal
import torch
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.layers.encryption.ckks import FLOODING_STD, SLOTS, EncryptedSum, Secret, new_secret


@pytest.fixture(scope="module")
def secret() -> Secret:
    return Secret(new_secret())


def drawn(size: int, name: str = "x", scale: float = 1.0) -> Tensor:
    return torch.randn(size, generator=torch_generator(0, name), dtype=torch.float64) * scale


def summed(parts: list[list[bytes]], size: int) -> list[bytes]:
    total = EncryptedSum(size)
    for part in parts:
        total.add(part)
    return total.ciphertexts()


def test_two_vectors_by_hand(secret: Secret) -> None:
    """(1, −2, 0.5) + (3, 4, 0.25) = (4, 2, 0.75); the noise is 2⁻²⁰ per entry."""
    one, two = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, 4.0, 0.25])
    total = secret.decrypt(summed([secret.encrypt(one), secret.encrypt(two)], 3), 3)
    torch.testing.assert_close(total, torch.tensor([4.0, 2.0, 0.75]).double(), rtol=0, atol=6 * FLOODING_STD)


@pytest.mark.parametrize("size", [0, 1, SLOTS - 1, SLOTS, SLOTS + 1, 3 * SLOTS])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_encrypted_sum_is_the_plain_sum_within_the_stated_precision(
    secret: Secret, size: int, scale: float
) -> None:
    vectors = [drawn(size, str(i), scale) for i in range(3)]
    total = secret.decrypt(summed([secret.encrypt(v) for v in vectors], size), size)
    expected = torch.stack(vectors).sum(dim=0)
    bound = 7 * FLOODING_STD + 2.0**-45 * scale
    assert len(total) == size
    assert not size or float((total - expected).abs().max()) < bound


def test_the_largest_sum_does_not_wrap(secret: Secret) -> None:
    large = torch.tensor([2.0**35, -(2.0**35)], dtype=torch.float64)
    total = secret.decrypt(summed([secret.encrypt(large), secret.encrypt(large)], 2), 2)
    torch.testing.assert_close(total, 2 * large, rtol=1e-12, atol=0)


def test_the_noise_is_normal_fresh_and_far_above_the_schemes_own_error(secret: Secret) -> None:
    """10,000 draws: standard deviation within 3 % (4 standard errors of 0.7 %), no draw twice."""
    size = 10_000
    once = secret.encrypt(torch.zeros(size))
    first, second = secret.decrypt(once, size) / FLOODING_STD, secret.decrypt(once, size) / FLOODING_STD
    assert float(first.std()) == pytest.approx(1.0, abs=0.03)
    assert float(first.mean()) == pytest.approx(0.0, abs=0.04)
    assert float(((first.abs() < 1.0).double()).mean()) == pytest.approx(0.6827, abs=0.02)
    assert not bool((first == second).any())
    context = tenseal.context_from(_content(secret))
    own_errors = torch.tensor(tenseal.ckks_vector_from(context, once[0]).decrypt())
    assert float(own_errors.abs().max()) < 2.0**-58


def _content(secret: Secret) -> bytes:
    return bytes(secret._context.serialize(save_secret_key=True))


def test_the_same_vector_is_never_encrypted_the_same_way_and_takes_64_bytes_a_number(secret: Secret) -> None:
    one, two = secret.encrypt(drawn(SLOTS)), secret.encrypt(drawn(SLOTS))
    assert one != two
    assert 60 * SLOTS < len(one[0]) < 68 * SLOTS


def test_another_key_reads_nothing(secret: Secret) -> None:
    other = Secret(new_secret())
    assert other.key_id != secret.key_id
    assert float((other.decrypt(secret.encrypt(torch.ones(9)), 9) - 1.0).abs().min()) > 1e3


def test_what_the_server_uses_cannot_decrypt(secret: Secret) -> None:
    from strategies.layers.encryption import ckks

    context = ckks._public_context()
    assert not context.has_secret_key()
    with pytest.raises(ValueError, match="secret"):
        tenseal.ckks_vector_from(context, secret.encrypt(torch.ones(3))[0]).decrypt()


def _other_parameters() -> bytes:
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 60]
    )
    context.global_scale = 2.0**40
    return bytes(tenseal.ckks_vector(context, [1.0, 2.0, 3.0]).serialize())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: [], "expected 1 for 3 numbers, got 0"),
        (lambda c: [*c, *c], "got 2"),
        (lambda c: [b""], "other sizes|damaged"),
        (lambda c: [b"nonsense"], "damaged"),
        (lambda c: [c[0][: len(c[0]) // 2]], "damaged"),
        (lambda c: [c[0][:99] + b"\xff" * 64 + c[0][163:]], "damaged"),
        (lambda c: [_other_parameters()], "damaged|scale"),
    ],
)
def test_damaged_ciphertexts_are_refused_and_the_sum_stays(
    secret: Secret, damage: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    total = EncryptedSum(3)
    total.add(secret.encrypt(torch.ones(3)))
    with pytest.raises(ValueError, match=message):
        total.add(damage(secret.encrypt(torch.ones(3))))
    torch.testing.assert_close(
        secret.decrypt(total.ciphertexts(), 3), torch.ones(3).double(), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**37])
def test_what_cannot_be_encrypted_is_refused(secret: Secret, value: float) -> None:
    with pytest.raises(ValueError, match="is not within"):
        secret.encrypt(torch.tensor([0.0, value]))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x00" * 1000])
def test_a_file_that_holds_no_key_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no CKKS key"):
        Secret(content)


def test_a_key_without_its_secret_half_is_refused() -> None:
    context = tenseal.context_from(new_secret())
    context.make_context_public()
    with pytest.raises(ValueError, match="no CKKS key with a secret half"):
        Secret(bytes(context.serialize()))
