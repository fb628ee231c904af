"""Held-out examples: how many, which, and that the choice never moves."""

import pytest
from hypothesis import given, strategies as st

from strategies.client.holdout import held_out, is_held_out, most_held_out

SHARES = st.floats(0.0, 1.0, exclude_max=True)
IDS = st.text(max_size=8)


@given(SHARES, IDS, st.integers(0, 300), st.integers(0, 300))
def test_data_that_are_appended_move_nothing(share: float, client_id: str, count: int, more: int) -> None:
    assert held_out(share, client_id, count + more)[:count].equal(held_out(share, client_id, count))


@given(SHARES, IDS, st.integers(0, 200))
def test_one_position_is_answered_as_all_are(share: float, client_id: str, count: int) -> None:
    mask = held_out(share, client_id, count)
    assert [is_held_out(share, client_id, i) for i in range(count)] == mask.tolist()


@given(SHARES, IDS, st.integers(1, 300))
def test_no_more_are_held_out_than_said_and_one_is_trained_on(
    share: float, client_id: str, count: int
) -> None:
    aside = int(held_out(share, client_id, count).sum())
    assert aside <= most_held_out(share, count - aside)
    assert aside < count


@pytest.mark.parametrize(("share", "of_1000"), [(0.0, 0), (0.1, 100), (0.2, 200), (0.33, 330), (0.5, 500)])
def test_the_share_holds_over_whole_blocks(share: float, of_1000: int) -> None:
    """Exactly, but for the first example, which is never held out."""
    counts = [int(held_out(share, str(i), 1000).sum()) for i in range(50)]
    assert set(counts) <= {of_1000, of_1000 - 1}


def test_every_position_but_the_first_is_held_out_equally_often() -> None:
    """A share of 0.3 over 2,000 clients: within five standard errors of 0.0102."""
    masks = sum(held_out(0.3, str(i), 40).double() for i in range(2000)) / 2000
    assert masks[0] == 0
    assert bool(((masks[1:] - 0.3).abs() < 0.052).all())


def test_clients_differ() -> None:
    assert not held_out(0.5, "0", 100).equal(held_out(0.5, "1", 100))


def test_a_process_keeps_the_choices_of_many_clients() -> None:
    """Bounded by bytes: a round of a thousand clients does not push out the first of them."""
    first = [held_out(0.2, str(i), 4) for i in range(1000)]
    assert all(held_out(0.2, str(i), 4) is choice for i, choice in enumerate(first))
