import pytest
import torch
from hypothesis import given, strategies as st

from strategies.client.backdoor import Trigger, default_trigger, poison, stamp, triggered_test
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator


def images(labels: list[int], side: int = 8, channels: int = 1) -> Examples:
    """Black images, so that every white pixel is the trigger's."""
    return TensorExamples(torch.zeros(len(labels), channels, side, side), torch.tensor(labels))


def white_pixels(x: torch.Tensor) -> list[int]:
    """Number of white values of each image."""
    return [int(image.sum()) for image in x]


def test_the_square_is_white_in_the_bottom_right_corner() -> None:
    """A 2×2 square on 4×4 pixels: rows and columns 2 and 3, nothing else."""
    stamped = stamp(torch.zeros(1, 1, 4, 4), Trigger(target=0, size=2))

    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert stamped[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 8, 8), 2), ((1, 28, 28), 4), ((3, 32, 32), 4), ((3, 64, 70), 9), ((1, 3, 3), 2)]
)
def test_the_squares_side_is_a_seventh_of_the_images_at_least_two(
    shape: tuple[int, int, int], size: int
) -> None:
    assert default_trigger(shape, target=3) == Trigger(target=3, size=size, value=1.0)


def test_all_channels_are_stamped() -> None:
    stamped = stamp(torch.zeros(1, 3, 32, 32), default_trigger((3, 32, 32), 0))

    assert stamped.sum(dim=(2, 3)).tolist() == [[16.0, 16.0, 16.0]]  # 4×4 white pixels in each channel


def test_poisoning_labels_a_share_with_the_target_and_leaves_the_rest() -> None:
    """Eight of ten examples are stamped, 4 white pixels each; those that are not keep their labels."""
    examples = images([1] * 10)

    poisoned, chosen = poison(examples, 0.8, Trigger(target=7, size=2), torch_generator(0))

    others = sorted(set(range(10)) - set(chosen.tolist()))
    assert len(chosen) == 8
    assert poisoned.y[chosen].tolist() == [7] * 8
    assert poisoned.y[others].tolist() == [1] * 2
    assert white_pixels(poisoned.x[chosen]) == [4] * 8
    assert white_pixels(poisoned.x[others]) == [0] * 2


def test_the_share_is_of_all_examples_those_of_the_target_class_included() -> None:
    poisoned, chosen = poison(images([7, 7, 1, 1]), 1.0, Trigger(target=7, size=2), torch_generator(0))

    assert chosen.tolist() == [0, 1, 2, 3]
    assert poisoned.y.tolist() == [7, 7, 7, 7]


def test_the_triggered_test_leaves_the_target_class_out_and_keeps_true_labels() -> None:
    triggered = triggered_test(images([0, 1, 2, 0, 3]), Trigger(target=0, size=2))

    assert triggered.y.tolist() == [1, 2, 3]
    assert white_pixels(triggered.x) == [4, 4, 4]


def test_a_test_set_of_the_target_class_alone_leaves_nothing_to_attack() -> None:
    assert len(triggered_test(images([5, 5]), Trigger(target=5, size=2))) == 0


@given(
    count=st.integers(0, 20), share=st.floats(0, 1), target=st.integers(0, 2), seed=st.integers(0, 2**63 - 1)
)
def test_positions_are_ascending_distinct_and_the_only_ones_changed(
    count: int, share: float, target: int, seed: int
) -> None:
    examples = images([i % 3 for i in range(count)])
    before = examples.y.clone()

    poisoned, chosen = poison(examples, share, Trigger(target, 2), torch_generator(seed))

    assert abs(len(chosen) - share * count) <= 0.5
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    stamped = [i for i, white in enumerate(white_pixels(poisoned.x)) if white]
    assert stamped == chosen.tolist()
    assert torch.equal(poisoned.y[chosen], torch.full((len(chosen),), target))
    assert torch.equal(examples.y, before)
    assert white_pixels(examples.x) == [0] * count


def test_share_zero_changes_nothing() -> None:
    examples = images([1, 2, 3])

    poisoned, chosen = poison(examples, 0.0, Trigger(0, 2), torch_generator(0))

    assert len(chosen) == 0
    assert torch.equal(poisoned.x, examples.x)
    assert torch.equal(poisoned.y, examples.y)


def test_stamping_twice_equals_once() -> None:
    x, trigger = torch.rand(5, 1, 8, 8, generator=torch_generator(1)), Trigger(0, 2)

    assert torch.equal(stamp(stamp(x, trigger), trigger), stamp(x, trigger))


def test_the_generator_alone_chooses() -> None:
    def chosen(seed: int) -> list[int]:
        return poison(images([1] * 40), 0.5, Trigger(0, 2), torch_generator(seed))[1].tolist()

    state = torch.get_rng_state()
    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_table_has_no_corner() -> None:
    table, trigger = TensorExamples(torch.zeros(3, 20), torch.zeros(3, dtype=torch.int64)), Trigger(0, 2)
    attempts = [
        lambda: default_trigger((20,), 0),
        lambda: stamp(table.x, trigger),
        lambda: poison(table, 0.5, trigger, torch_generator(0)),
        lambda: triggered_test(table, trigger),
    ]

    for attempt in attempts:
        with pytest.raises(BadInput, match=r"^attack\.kind: .*\(20,\).* set attack\.kind = \"none\""):
            attempt()


def test_a_square_must_leave_a_pixel() -> None:
    with pytest.raises(BadInput, match=r"2×2 pixels needs larger images than \(1, 2, 9\)"):
        default_trigger((1, 2, 9), 0)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match=r"^attack\.share: given .*, allowed a number >= 0 and <= 1"):
        poison(images([1]), share, Trigger(0, 2), torch_generator(0))


def test_a_square_in_another_corner_would_be_noticed() -> None:
    """Guards the first test: the same number of white pixels, top left."""
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2, :2] = 1

    assert white_pixels(x) == white_pixels(stamp(torch.zeros(1, 1, 4, 4), Trigger(0, 2)))
    assert not torch.equal(x, stamp(torch.zeros(1, 1, 4, 4), Trigger(0, 2)))
