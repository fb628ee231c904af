"""strategies/core/isolation.py: a client's group follows from its client-id alone."""

from collections import Counter

from hypothesis import given, strategies as st

from strategies.core.isolation import empty_groups, group_of, grouped

IDS = st.lists(st.one_of(st.integers(0, 99).map(str), st.text(min_size=1, max_size=5)), unique=True)


def test_numbers_are_dealt_out_and_names_go_by_their_hash() -> None:
    assert [group_of(str(i), 3) for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    spread = Counter(group_of(f"ward-{i}", 4) for i in range(400))
    assert set(spread) == {0, 1, 2, 3}
    assert max(spread.values()) < 140


@given(IDS, st.integers(1, 6))
def test_who_leaves_moves_no_other(ids: list[str], groups: int) -> None:
    before = {i: group for group, members in grouped(ids, groups).items() for i in members}
    after = {i: group for group, members in grouped(ids[1:], groups).items() for i in members}
    assert after == {i: before[i] for i in ids[1:]}
    assert set(empty_groups(ids, groups)) == set(range(groups)) - set(before.values())


def test_one_group_holds_all() -> None:
    assert grouped(["7", "x"], 1) == {0: ["7", "x"]}
