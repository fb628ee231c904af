"""unlearning/certificate.py: signed bytes of which none can change, and what they do not show."""

import json
import math
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings, strategies as st

from strategies.core.errors import BadInput
from unlearning.certificate import Certificate, fingerprint, limits, limits_of_purge, make, read

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
SMALL = {"request": {"clients": ["3"]}, "disparity": 0.1, "ok": True}


def is_accepted(document: bytes) -> bool:
    """Say whether anybody would take these bytes for a signed certificate."""
    try:
        return read(document).is_signed
    except BadInput:
        return False


# by hand


def test_the_public_test_vector_of_the_signature_scheme() -> None:
    """RFC 8032, section 7.1, test 1: the empty message. It shows which scheme `cryptography` gives us."""
    secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    signed = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0"
        "595bbe24655141438e7a100b"
    )
    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).sign(b"").hex() == signed


def test_a_certificate_checked_without_this_code() -> None:
    """The signature is over the bytes between `{"certificate":` and `,"signature":"`, as they stand."""
    document = make(SMALL, KEY)
    head, middle = b'{"certificate":', b',"signature":"'
    assert document.startswith(head)
    signed, rest = document.removeprefix(head).split(middle)
    statement = json.loads(signed)
    public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement["public-key"]))
    public_key.verify(bytes.fromhex(rest.removesuffix(b'"}\n').decode()), signed)
    assert statement == {
        **SMALL,
        "format": "lethe-certificate",
        "version": 1,
        "public-key": statement["public-key"],
    }
    assert statement["public-key"] == KEY.public_key().public_bytes_raw().hex()
    assert signed == json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def test_what_was_signed_is_read_back() -> None:
    found = read(make(SMALL, KEY))
    assert found.is_signed
    assert {key: found.statement[key] for key in SMALL} == SMALL
    assert found.public_key == KEY.public_key().public_bytes_raw()
    assert found.fingerprint == fingerprint(found.public_key)


# properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_any_plain_data_can_be_certified(statement: dict[str, Any]) -> None:
    """Floats that are not finite become null; everything else comes back as it was."""
    document = make(statement, KEY)
    assert read(document).is_signed
    assert make(read(document).statement, KEY) == document
    assert document.isascii()


def test_the_order_of_keys_is_irrelevant_and_numbers_as_keys_are_texts() -> None:
    assert make({"b": {10: 1, 9: (2,)}, "a": 0}, KEY) == make({"a": 0, "b": {"9": [2], "10": 1}}, KEY)
    assert is_accepted(make({"b": {10: 1, 9: (2,)}, "a": 0}, KEY))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-310, 5.0, -0.0, math.nextafter(1, 2), 1e22, 123456789.123])
def test_floats_come_back_to_the_bit(value: float) -> None:
    found = read(make({"value": value}, KEY)).statement["value"]
    assert math.copysign(1, found) == math.copysign(1, value)
    assert found == value


# randomness


def test_the_same_statement_and_key_give_the_same_bytes() -> None:
    assert make(SMALL, KEY) == make(SMALL, KEY)
    assert make(SMALL, KEY) != make(SMALL, OTHER)


# a changed byte anywhere is noticed


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    """Of every byte: those of the statement, of the signature, and of what is between them."""
    document = make(SMALL, KEY)
    assert is_accepted(document)
    for position in range(len(document)):
        changed = bytearray(document)
        changed[position] ^= 1 << bit
        assert not is_accepted(bytes(changed)), (position, bytes(changed))


def test_every_missing_or_additional_byte_is_noticed() -> None:
    document = make(SMALL, KEY)
    for position in range(len(document)):
        start, rest = document[:position], document[position:]
        for changed in (
            start,
            start + rest[1:],
            start + b" " + rest,
            start + b"0" + rest,
            start + b"\x00" + rest,
        ):
            assert not is_accepted(changed), (position, changed)
    assert not is_accepted(document + b"\n")


def retold(document: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert document.count(old) == 1
        document = document.replace(old, new)
    return document


@pytest.mark.parametrize(
    "change",
    [
        (b"0.1", b"0.10"),
        (b"0.1", b"1e-1"),
        (b"true", b"true "),
        (b'"3"', b'"\\u0033"'),
        (b'"ok":true', b'"ok":false,"ok":true'),
        (b'"signature"', b'"signature":"","signature"'),
        (b"}\n", b',"note":1}\n'),
        (b"}\n", b"}\r\n"),
    ],
)
def test_another_way_to_write_the_same_is_noticed(change: tuple[bytes, bytes]) -> None:
    """What a lenient reader would take for the same statement."""
    assert not is_accepted(retold(make(SMALL, KEY), change))


def test_hexadecimal_digits_have_one_form() -> None:
    """Capitals stand for the same bytes, and `bytes.fromhex` skips spaces."""
    document = make(SMALL, KEY)
    start = document.index(b'"signature":"') + len(b'"signature":"')
    assert not is_accepted(document[:start] + document[start : start + 128].upper() + document[start + 128 :])
    assert not is_accepted(document[:start] + b" " + document[start:])


def test_other_encodings_of_json_are_noticed() -> None:
    text = make(SMALL, KEY).decode()
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert not is_accepted(text.encode(encoding))


def test_another_signer_needs_another_key() -> None:
    """Who replaces statement and signature cannot keep the key; who keeps the key cannot sign."""
    original, forged = read(make(SMALL, KEY)), read(make({**SMALL, "disparity": 0.0}, OTHER))
    assert forged.is_signed
    assert forged.fingerprint != original.fingerprint
    mixed = make({**SMALL, "disparity": 0.0}, OTHER).replace(
        OTHER.public_key().public_bytes_raw().hex().encode(),
        KEY.public_key().public_bytes_raw().hex().encode(),
    )
    assert not is_accepted(mixed)


# errors


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "no certificate: expected JSON"),
        (b"\xff\xfe", "no certificate: expected JSON"),
        (b"[" * 100_000, "no certificate: expected JSON"),
        (b"[]", "expected an object of the format 'lethe-certificate', signed"),
        (b'{"certificate":{}}', "expected an object of the format"),
        (b'{"certificate":{"format":"lethe-certificate","version":1}}', "expected an object of the format"),
        (
            b'{"certificate":{"format":"lethe-certificate","version":2},"signature":""}',
            "certificate of version 2, this Lethe reads 1",
        ),
    ],
)
def test_what_is_no_certificate_is_refused(document: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(document)


@pytest.mark.parametrize("key", [None, 5, "", "zz", "00" * 31, "00" * 33, "AB" * 32])
def test_a_certificate_with_no_usable_key_is_not_signed(key: object) -> None:
    statement = {"format": "lethe-certificate", "version": 1, "public-key": key}
    document = json.dumps({"certificate": statement, "signature": "00" * 64}).encode()
    assert not Certificate(statement, document).is_signed


# what it does not show


def test_the_limits_say_what_was_not_measured_or_promised() -> None:
    bare = limits("distill", "approximate: the teacher has seen the client", None)
    assert bare[0] == "distill, approximate: the teacher has seen the client"
    assert any("nothing was audited" in limit for limit in bare)
    assert any("no ε" in limit for limit in bare)
    audited = limits("distill", "approximate", {"notes": ["the backdoor did not take"]}, epsilon=2.0)
    assert "the backdoor did not take" in audited
    assert not any("nothing was audited" in limit or "no ε" in limit for limit in audited)
    assert any("no attack with shadow models was made" in limit for limit in audited)
    assert any("neither relearning nor rounding was tried" in limit for limit in audited)
    both = limits("distill", "approximate", {"rounded": {"8": {}}})
    assert any(limit.endswith("show: relearning was not tried (audit.relearn)") for limit in both)
    assert all("client 3, 5" in limit for limit in limits_of_purge(["3", "5"])[:2])
    assert "run.track" in limits_of_purge(["3"], tracked=True)[-1]
    assert not any("run.track" in limit for limit in limits_of_purge(["3"]))


@pytest.mark.parametrize(
    ("after", "retrained", "limit"),
    [
        (0, 3, "is known again after 0 rounds, by the retrained model after 3"),
        (2, None, "is known again after 2 rounds, by the retrained model after more than 5"),
        (3, 3, None),
        (None, 3, None),
        (None, None, None),
    ],
)
def test_what_is_relearned_sooner_than_by_a_retrained_model_is_a_limit(
    after: int | None, retrained: int | None, limit: str | None
) -> None:
    audit = {"relearned": {"after": after, "retrained": retrained, "most": 5}}
    said = limits("distill", "approximate", audit)
    found = [each for each in said if each.startswith("relearning: what was forgotten")]
    assert [each[-len(limit or "") :] for each in found] == ([limit] if limit else [])
    assert any(each.endswith("show: rounding was not tried (audit.rounding)") for each in said)
    both = limits("distill", "approximate", {**audit, "rounded": {"8": {}}})
    assert any(each.endswith("relearning and rounding were tried, and nothing else") for each in both)


def test_a_verdict_with_shadow_models_that_is_no_pass_is_a_limit() -> None:
    def said(outcome: str) -> list[str]:
        shadows = {"outcome": outcome, "text": "an attacker with 16 pairs"}
        return [each for each in limits("distill", "approximate", {"shadows": shadows}) if "shadow" in each]

    kept = "shadow models that were trained with the forgotten data are kept in the run's folder, too"
    assert said("fails") == said("undecided") == ["shadow models: an attacker with 16 pairs", kept]
    assert said("passes") == [kept]
