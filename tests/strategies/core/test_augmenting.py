"""strategies/core/augmenting.py: only training batches are varied, by their seed, one input at a time."""

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from strategies.client.data_tags import block_tags
from strategies.client.settings import TrainSettings
from strategies.client.training import local_train
from strategies.core.augmenting import Augmented, variation
from strategies.core.dataset_examples import DatasetExamples, StoredParts
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, Inputs, TensorExamples, in_memory
from strategies.core.secret_random import Randomness
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.training import PrivateTrainer

ALL = torch.arange(8)


def images(count: int = 8) -> TensorExamples:
    """Return images whose pixels all differ."""
    return TensorExamples(torch.arange(count * 16.0).view(count, 1, 4, 4), torch.arange(count) % 2)


def add_noise(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Vary a batch by a function of two arguments."""
    assert isinstance(inputs, torch.Tensor)
    return inputs + torch.rand(inputs.shape, generator=generator)


def test_flips_by_hand() -> None:
    """With a random flip every image is as it was or mirrored, and of eight not all are the same."""
    plain = images()
    examples = Augmented(plain, variation(v2.RandomHorizontalFlip(0.5)))
    x, y = examples.training_batch(ALL, torch_generator(0))
    flipped = [bool(one.equal(was.flip(-1))) for one, was in zip(x, plain.x, strict=True)]
    same = [bool(one.equal(was)) for one, was in zip(x, plain.x, strict=True)]
    assert all(f != s for f, s in zip(flipped, same, strict=True))
    assert set(flipped) == {True, False}
    assert y.equal(plain.y)


@pytest.mark.parametrize("transform", [v2.RandomCrop(4, padding=1), add_noise, lambda x: x + torch.rand(())])
def test_seeded(transform: object) -> None:
    """The same seed repeats, another differs; the global generator has no effect and is not changed."""
    examples = Augmented(images(), variation(transform))

    def drawn(seed: int) -> torch.Tensor:
        return examples.training_batch(ALL, torch_generator(seed))[0]

    before, first = torch.get_rng_state(), drawn(1)
    assert torch.get_rng_state().equal(before)
    torch.rand(3)
    assert drawn(1).equal(first)
    assert not drawn(2).equal(first)


def test_nothing_else_is_varied() -> None:
    """Batches, subsets, tags, targets and memory are those of the examples as they are."""
    plain, examples = images(), Augmented(images(), variation(v2.RandomHorizontalFlip(1.0)))
    assert examples.batch(ALL)[0].equal(plain.x)
    assert next(iter(examples.batches(8)))[0].equal(plain.x)
    assert in_memory(examples).x.equal(plain.x)
    assert examples.groups().equal(plain.y)
    assert block_tags(examples, b"k", 8) == block_tags(plain, b"k", 8)
    few = examples.without([0])
    assert few.batch(torch.tensor([0]))[0].equal(plain.x[1:2])
    assert few.training_batch(torch.tensor([0]), torch_generator(0))[0].equal(plain.x[1:2].flip(-1))


def trained(examples: Examples, trainer: object = local_train) -> torch.Tensor:
    """Return the weights after two steps from zero."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    for p in model.parameters():
        nn.init.zeros_(p)
    trainer(model, examples, TrainSettings(batch_size=4, local_steps=2), torch_generator(3))
    return model[1].weight.detach()


def test_training_reads_the_variation() -> None:
    """Training on images that are always flipped is training on flipped images, in the same order."""
    flipped = TensorExamples(images().x.flip(-1), images().y)
    always = Augmented(images(), variation(v2.RandomHorizontalFlip(1.0)))
    assert trained(always).equal(trained(flipped))
    assert not trained(always).equal(trained(images()))


def test_private_training_varies_each_input_alone() -> None:
    """A transform that mixes a batch sees one input at a time, so no example is in another's gradient."""
    seen: list[int] = []

    def mix(inputs: Inputs, generator: torch.Generator) -> Inputs:
        assert isinstance(inputs, torch.Tensor)
        seen.append(len(inputs))
        return inputs + inputs.mean(dim=0)

    doubled = TensorExamples(2 * images().x, images().y)
    trainer = [PrivateTrainer(0.0, 1.0, Randomness.of("seeded")) for _ in range(2)]
    assert trained(Augmented(images(), mix), trainer[0]).equal(trained(doubled, trainer[1]))
    assert set(seen) == {1}


def test_parts_by_name_are_varied_together() -> None:
    """A transform of one input gets a dict of its parts."""
    parts = {"image": images().x, "age": torch.arange(8.0)}
    older = variation(lambda one: {**one, "age": one["age"] + 1})
    examples = Augmented(DatasetExamples.all_of(StoredParts(parts, ALL % 2)), older)
    inputs, _ = examples.training_batch(torch.tensor([2, 3]), torch_generator(0))
    assert inputs["age"].tolist() == [3.0, 4.0]
    assert inputs["image"].equal(images().x[2:4])


def test_wrong_transforms() -> None:
    """What is no transform, and one that loses inputs, are refused in one line."""
    wanted = "allowed a transform of torchvision, a function of one input, or one of (inputs, generator)"
    for wrong, given in ((3, "int"), (lambda: 0, "a function of 0 arguments")):
        with pytest.raises(BadInput) as refused:
            variation(wrong)
        assert str(refused.value) == f"transform: given {given}, {wanted}"
    halved = Augmented(images(), lambda inputs, generator: inputs[:4])
    with pytest.raises(BadInput, match=r"^transform: gives 4 inputs for 8; wanted as many$"):
        halved.training_batch(ALL, torch_generator(0))


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda x: x.numpy(), "gives ndarray for an input; wanted a tensor"),
        (lambda x: None, "gives NoneType for an input; wanted a tensor"),
        (lambda x: x[:, : 1 + int(x.sum()) % 3], "gives inputs of shapes .* and .*; wanted one shape"),
        (lambda x, generator: x.numpy(), "gives ndarray for inputs; wanted a tensor of as many"),
        (lambda x, generator: x.sum(), "gives Tensor for inputs; wanted a tensor of as many"),
    ],
)
def test_what_is_no_batch(transform: object, said: str) -> None:
    """One line says what a transform gives that nothing can be made of."""
    images = TensorExamples(torch.arange(8 * 9.0).view(8, 1, 9) // 5, torch.arange(8) % 2)
    with pytest.raises(BadInput, match=f"^transform: {said}"):
        Augmented(images, variation(transform)).training_batch(ALL, torch_generator(0))


def test_what_is_no_dict() -> None:
    """Of inputs with names, all names are wanted back, as tensors."""
    parts = StoredParts({"a": torch.zeros(8, 2), "b": torch.zeros(8, 3)}, ALL % 2)
    examples = DatasetExamples.all_of(parts)
    for transform, said in (
        (lambda x: {"a": x["a"]}, "wanted a dict with a, b for each input"),
        (lambda x, generator: x["a"], "gives Tensor for a dict of inputs"),
        (lambda x, generator: {**x, "b": None}, "gives NoneType for inputs"),
    ):
        with pytest.raises(BadInput, match=f"^transform: {said}"):
            Augmented(examples, variation(transform)).training_batch(ALL, torch_generator(0))


def test_float64_is_made_what_the_inputs_are() -> None:
    """A transform that computes in float64 gives a model what it takes."""
    for transform in (lambda x: x.double() + 0.5, lambda x, generator: x.double() + 0.5):
        x, _ = Augmented(images(), variation(transform)).training_batch(ALL, torch_generator(0))
        assert isinstance(x, torch.Tensor)
        assert x.equal(images().x + 0.5)
        assert x.dtype == torch.float32
