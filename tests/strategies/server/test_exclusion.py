"""strategies/server/exclusion.py: what clients are told to leave out."""

from hypothesis import given, strategies as st

from strategies.server.exclusion import Drop

positions = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 9), min_size=1).map(tuple))
drops = st.builds(Drop, st.lists(st.integers(0, 9)).map(tuple), positions)


def test_joined_by_hand() -> None:
    joined = Drop.joined([Drop((7,), {"a": (2,)}), Drop((3, 7)), Drop((), {"a": (0, 2), "b": (5,)})])
    assert joined == Drop((3, 7), {"a": (0, 2), "b": (5,)})
    assert joined.config("a") == {"drop-classes": [3, 7], "drop-indices": [0, 2]}
    assert joined.config("c") == {"drop-classes": [3, 7]}


@given(st.lists(drops))
def test_joined_is_the_union_in_any_order(listed: list[Drop]) -> None:
    joined = Drop.joined(listed)
    assert joined == Drop.joined(reversed(listed)) == Drop.joined([joined, *listed])
    assert set(joined.classes) == {label for drop in listed for label in drop.classes}
    for client_id in "abc":
        expected = {p for drop in listed for p in drop.indices.get(client_id, ())}
        assert set(joined.indices.get(client_id, ())) == expected


def test_what_is_gone_travels_beside_what_is_dropped() -> None:
    drop = Drop((1,), {}, gone=Drop((7,), {"a": (2,)}))
    assert drop.config("a") == {"drop-classes": [1], "gone-classes": [7], "gone-indices": [2]}
    assert drop.config("b") == {"drop-classes": [1], "gone-classes": [7]}


def test_nothing_joined_leaves_nothing_out() -> None:
    assert Drop.joined([]) == Drop()
