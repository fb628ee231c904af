"""Both halves of a secure sum together."""

import re
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from strategies.core import wire
from strategies.layers.secagg import protocol
from strategies.layers.secagg.client import STATE, Refused, SecureClient
from strategies.layers.secagg.protocol import needed
from tests.strategies.secagg.world import MASKED, World, vectors

FIVE = vectors(5)
NAMES = sorted(FIVE)


def subsets(names: list[str]) -> list[set[str]]:
    return [set(s) for s in chain.from_iterable(combinations(names, k) for k in range(len(names) + 1))]


def test_worked_by_hand() -> None:
    """1 + 2 − 4 = −1, and the server sees none of the three."""
    plain = {i: np.full(6, n, dtype=np.int64).view(np.uint64) for i, n in (("a", 1), ("b", 2), ("c", -4))}
    world = World(plain)
    total = world.run()
    assert total is not None
    assert total.view(np.int64).tolist() == [-1] * 6
    assert all(not np.array_equal(world.sent[i], plain[i]) for i in plain)
    assert world.faults == []
    assert world.secure.survivors == ["a", "b", "c"]


@pytest.mark.parametrize("lost_after_sharing", subsets(NAMES), ids=lambda s: "+".join(sorted(s)) or "none")
def test_every_set_of_losses(lost_after_sharing: set[str]) -> None:
    """Of five, four must stay: exact for every set lost before, and every set lost after, the vector."""
    rest = [i for i in NAMES if i not in lost_after_sharing]
    for lost_later in subsets(rest):
        world = World(FIVE, silent={MASKED: lost_after_sharing, wire.SECAGG_UNMASK: lost_later})
        total = world.run()
        if len(rest) - len(lost_later) < 4:
            assert total is None
            assert world.faults[-1][0] == "all"
            assert "4 needed" in world.faults[-1][1]
        else:
            assert total is not None
            assert np.array_equal(total, world.expected())
            assert world.secure.survivors == rest


@pytest.mark.parametrize("kind", [wire.SECAGG_KEYS, wire.SECAGG_SHARES])
def test_losses_before_sharing(kind: str) -> None:
    for lost in subsets(NAMES):
        world = World(FIVE, silent={kind: lost})
        total = world.run()
        assert (total is None) == (len(lost) > 1)
        assert total is None or np.array_equal(total, world.expected())


def test_the_threshold_by_hand() -> None:
    """0.67 · 5 = 3.35 → 4; never fewer than two."""
    assert [needed(0.67, n) for n in (1, 2, 3, 5, 6)] == [2, 2, 3, 4, 5]
    assert needed(1.0, 7) == 7


def test_a_server_that_tells_clients_different_stories_has_too_few_shares() -> None:
    """n clients open at most n(n − t) shares of keys, one client's masks in a sum of t need t(t − 1)."""
    for count in range(2, 200):
        least = needed(0.5, count)
        assert least == count * 2 // 3 + 1
        assert least * (least - 1) > count * (count - least)


def test_two_of_three_would_uncover_a_client_and_are_refused_by_it() -> None:
    """At t = 2 of n = 3 as at t = 4 of n = 6: t(t − 1) ≤ n(n − t). The client asks for more by itself."""

    def lower(kind: str, client_id: str, told: dict[str, Any]) -> None:
        if kind == wire.SECAGG_SHARES:
            told[protocol.THRESHOLD] = 2 * len(told[protocol.NUMBERS]) // 3

    for count, asked in ((3, "2 of 3 clients must stay, but this one asks for 3"), (6, "4 of 6 .* for 5")):
        world = World(vectors(count), threshold=0.5, tamper=lower)
        assert world.run() is None
        refusals = [why for client_id, why in world.faults if client_id != "all"]
        assert len(refusals) == count
        assert all(re.search(asked, why) for why in refusals)


def test_three_clients_bear_no_loss() -> None:
    world = World(vectors(3), silent={MASKED: {"c2"}})
    assert world.run() is None
    assert world.faults == [("all", "secure sum: 2 of 3 clients sent a vector, 3 needed")]


def test_one_client_alone_is_not_summed() -> None:
    world = World(vectors(1))
    assert world.run() is None
    assert world.faults == [("all", "secure sum: 1 of 1 clients sent keys, 2 needed")]


def test_what_the_server_sees_of_a_client_looks_uniform() -> None:
    """Chi-square over the bytes of 50 masked vectors of zeros: 255 degrees, mean 255, deviation 22.6."""
    counts = np.zeros(256)
    for _ in range(50):
        world = World({i: np.zeros(400, dtype=np.uint64) for i in "abc"})
        world.send()
        counts += np.bincount(world.sent["b"].view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert 255 - 5 * 22.6 < ((counts - expected) ** 2 / expected).sum() < 255 + 5 * 22.6


def test_the_same_vector_is_masked_anew_in_every_sum() -> None:
    first, second = World(FIVE), World(FIVE)
    first.send()
    second.send()
    assert all(not np.array_equal(first.sent[i], second.sent[i]) for i in NAMES)


def unmask(world: World, client_id: str, survivors: list[int], dropped: list[int]) -> Any:
    told = {
        protocol.SESSION: world.secure.invitation(client_id)[protocol.SESSION],
        protocol.SURVIVORS: survivors,
        protocol.DROPPED: dropped,
    }
    return world.half(client_id, told).unmask()


@pytest.mark.parametrize(
    ("survivors", "dropped", "complaint"),
    [
        ([1, 2, 3, 4, 5], [5], "both shares of client number 5"),
        ([1, 2], [3, 4, 5], "2 clients are left, but 4 must be"),
        ([1, 2, 3, 4], [], "others than those who took part"),
        ([1, 2, 3, 4, 5], [6], "others than those who took part"),
        ([2, 1, 3, 4, 5], [], "twice, or is not in order"),
    ],
)
def test_a_client_refuses_to_uncover_a_vector(
    survivors: list[int], dropped: list[int], complaint: str
) -> None:
    world = World(FIVE)
    world.send()
    with pytest.raises(Refused, match=complaint):
        unmask(world, "c0", survivors, dropped)


def test_a_client_opens_its_shares_once() -> None:
    """What it opened of client 5 is the seed; asked for the key later, it knows nothing any more."""
    world = World(FIVE)
    world.send()
    assert len(unmask(world, "c0", [1, 2, 3, 4, 5], [])[protocol.OPENED]) == 5
    assert STATE not in world.states["c0"]
    with pytest.raises(Refused, match="has opened its shares"):
        unmask(world, "c0", [1, 2, 3, 4], [5])


def test_a_client_masks_one_vector_per_sum() -> None:
    world = World(FIVE)
    world.send()
    again = world.half("c0", world.secure.invitation("c0"))
    with pytest.raises(Refused, match="done before"):
        again.masked(FIVE["c0"].copy())


def test_a_client_refuses_a_threshold_below_its_own() -> None:
    def lower(kind: str, client_id: str, told: dict[str, Any]) -> None:
        if kind == wire.SECAGG_SHARES and client_id == "c1":
            told[protocol.THRESHOLD] = 3

    world = World(FIVE, tamper=lower)
    total = world.run()
    assert ("c1", "refused: 3 of 5 clients must stay, but this one asks for 4") in world.faults
    assert total is not None
    assert np.array_equal(total, world.expected())
    assert "c1" not in world.sent


def test_a_client_refuses_another_key_in_place_of_its_own() -> None:
    def exchange(kind: str, client_id: str, told: dict[str, Any]) -> None:
        if kind == wire.SECAGG_SHARES and client_id == "c2":
            told[protocol.MASK_KEYS] = told[protocol.CIPHER_KEYS]

    world = World(FIVE, tamper=exchange)
    assert world.run() is not None
    assert any(i == "c2" and "not the client's own" in why for i, why in world.faults)


def test_a_ciphertext_that_was_changed_is_named() -> None:
    """What c3 sent to c0 does not decrypt: c0 says so, and opens no share of it; the sum is exact."""

    def flip(kind: str, client_id: str, entries: dict[str, Any]) -> None:
        if kind == wire.SECAGG_SHARES and client_id == "c3":
            box = entries[protocol.SHARES][0]
            entries[protocol.SHARES][0] = box[:-1] + bytes([box[-1] ^ 1])

    world = World(FIVE, spoil=flip)
    total = world.run()
    assert total is not None
    assert np.array_equal(total, world.expected())
    assert world.faults == [("c3", "its shares for client c0 are not what it committed to")]
    assert world.secure.suspects == {"c3"}


@pytest.mark.parametrize("lost", [set(), {"c6"}])
def test_a_share_that_was_changed_is_named(lost: set[str]) -> None:
    """Whether it is of a survivor's seed or of a lost one's key."""

    def flip(kind: str, client_id: str, entries: dict[str, Any]) -> None:
        if kind == wire.SECAGG_UNMASK and client_id == "c2":
            entries[protocol.OPENED][-1] = bytes(33)

    world = World(vectors(7), silent={MASKED: lost}, spoil=flip)
    total = world.run()
    assert total is not None
    assert np.array_equal(total, world.expected())
    assert world.faults == [("c2", "its share of client c6 is not the one that was dealt")]


def test_who_deals_shares_of_something_else_is_named_and_there_is_no_sum() -> None:
    """The shares fit their commitments, but make up another seed than the one that was used."""

    def another_seed(kind: str, client_id: str, entries: dict[str, Any]) -> None:
        if kind == wire.SECAGG_SHARES and client_id == "c1":
            entries[protocol.SEED_HASH] = bytes(32)

    world = World(FIVE, spoil=another_seed)
    assert world.run() is None
    assert world.faults == [
        ("c1", "the shares that it dealt do not make up its seed"),
        ("all", "client c1 dealt wrong shares: the sum cannot be unmasked"),
    ]


@pytest.mark.parametrize(
    ("kind", "key", "value", "complaint"),
    [
        (wire.SECAGG_KEYS, protocol.MASK_KEY, b"short", "not 32 bytes"),
        (wire.SECAGG_KEYS, protocol.MASK_KEY, bytes(32), "its key is none"),
        (wire.SECAGG_SHARES, protocol.SHARES, [b"x"] * 5, "something else than 0 or 94 bytes"),
        (wire.SECAGG_SHARES, protocol.COMMITMENTS, [], "not a list of 5"),
        (wire.SECAGG_SHARES, protocol.SEED_HASH, 3, "not 32 bytes"),
        (wire.SECAGG_UNMASK, protocol.OPENED, "no", "not a list of 5"),
    ],
)
def test_a_lying_client_is_named_and_the_sum_is_exact(
    kind: str, key: str, value: Any, complaint: str
) -> None:
    def lie(message: str, client_id: str, entries: dict[str, Any]) -> None:
        if message == kind and client_id == "c2":
            entries[key] = value

    world = World(FIVE, spoil=lie)
    total = world.run()
    assert total is not None
    assert np.array_equal(total, world.expected())
    assert [i for i, _ in world.faults] == ["c2"]
    assert complaint in world.faults[0][1]


def test_a_stolen_key_is_refused() -> None:
    """c1 sends c0's keys as its own."""
    stolen: dict[str, Any] = {}

    def steal(kind: str, client_id: str, entries: dict[str, Any]) -> None:
        if kind == wire.SECAGG_KEYS:
            stolen.setdefault("keys", dict(entries))
            if client_id == "c1":
                entries.update(stolen["keys"])

    world = World(FIVE, spoil=steal)
    assert world.run() is not None
    assert world.faults == [("c1", "its keys are those of another client, or one key twice")]


def test_a_message_of_no_sum() -> None:
    half = SecureClient(ConfigRecord({}), RecordDict(), 0.67)
    with pytest.raises(Refused, match="belongs to no secure sum"):
        half.keys()


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros(5, dtype=np.int64), "expected int64"),
        (np.zeros(6, dtype=np.float32), "expected int64"),
    ],
)
def test_a_vector_of_another_form(array: Any, complaint: str) -> None:
    world = World(FIVE)
    world.secure.open()
    content = RecordDict({wire.ARRAYS: ArrayRecord({wire.MASKED: Array(array)})})
    with pytest.raises(ValueError, match=complaint):
        world.secure.add("c0", content, 6)


def test_what_the_server_relays_tells_it_nothing() -> None:
    """No seed and no share of one stands in the clear in anything that a client sends before unmasking."""
    world = World(FIVE)
    world.secure.open()
    secrets_kept = [
        piece
        for state in world.states.values()
        for piece in (state.config_records[STATE]["seed"], state.config_records[STATE]["held"][0])  # type: ignore[index]
    ]
    sent = repr([dict(content.config_records[wire.CONFIG]) for content in world.seen])
    assert all(repr(piece)[2:-1] not in sent for piece in secrets_kept)
