"""docs/reference.py: what the reference says is what the program says."""

import inspect

import click
import pytest
import typer

import lethe
from app.cli.commands import app
from app.config.reference import all_keys
from docs import reference
from strategies.registry import all_traits
from strategies.tasks.choice import OWNERS
from unlearning.methods import METHODS

PAGES = reference.pages()


def test_every_command_stands_there_with_each_of_its_options() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    for name, command in root.commands.items():
        text = PAGES["command-line"].partition(f"\n## lethe {name}\n")[2].partition("\n## lethe")[0]
        options = [
            option for each in command.params if isinstance(each, click.Option) for option in each.opts
        ]
        assert [o for o in options if o not in {"--help"} and o not in text] == [], name
    assert "\n## lethe config explain\n" in PAGES["command-line"]


def test_every_public_name_of_the_python_face_stands_there() -> None:
    assert [name for name in lethe.__all__ if f"\n## lethe.{name}\n" not in PAGES["python"]] == []
    for name, member in inspect.getmembers(lethe.Run, inspect.isfunction):
        if not name.startswith("_"):
            text = PAGES["python"].partition(f"\n### Run.{name}\n")[2].partition("\n##")[0]
            assert [
                each
                for each in inspect.signature(member).parameters
                if each not in {"self"} and each not in text
            ] == []


def test_every_method_strategy_and_task_stands_there_with_its_keys() -> None:
    for name, method in METHODS.items():
        text = PAGES["methods"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        keys = [key.key for key in all_keys() if key.key.startswith(f"forget.{name}.")]
        assert [
            each for each in (*keys, method.guarantee, method.cost, method.source) if each not in text
        ] == []
    for traits in all_traits():
        text = PAGES["strategies"].partition(f"\n## {traits.name}")[2].partition("\n## ")[0]
        assert [key for key in traits.keys if f"`{key}`" not in text] == []
    for field, owner in OWNERS.items():
        text = PAGES["tasks"].partition(f"\n## {owner}\n")[2].partition("\n## ")[0]
        assert f"`task.{field.replace('_', '-')}`" in text


def documented(first: int, second: str = "a", *, third: bool = False) -> None:
    """Return nothing, with ``care``.

    A formula:

        w_1 = 2

        w_2 = 3

    Parameters
    ----------
    first, second
        Two things,
        in two lines.

    Raises
    ------
    BadInput
        If a<b.

    Examples
    --------
    >>> 1 + 1
    2
    """


def test_a_numpy_docstring_becomes_prose_lists_and_blocks() -> None:
    assert reference.documented(documented).split("\n\n") == [
        "Return nothing, with `care`.",
        "A formula:",
        "```text\nw_1 = 2",
        "w_2 = 3\n```",
        "**Parameters**",
        "- `first, second`: Two things, in two lines.",
        "**Raises**",
        "- `BadInput`: If a\\<b.",
        "**Examples**",
        "```pycon\n>>> 1 + 1\n2\n```",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a_b * c | `d_e`", "a\\_b \\* c \\| `d_e`"), ("``x``::\n\n    y\n\nz", "`x`\n\n```text\ny\n```\n\nz")],
)
def test_nothing_of_a_docstring_is_read_as_markup(text: str, shown: str) -> None:
    assert reference.prose(text) == shown


def test_a_signature_is_short_or_has_a_line_for_each_argument() -> None:
    assert reference.signature("f", documented) == (
        "```text\nf(first: int, second: str = a, *, third: bool = False) -> None\n```"
    )
    lines = reference.signature("train", lethe.train).splitlines()
    assert [line.split(":")[0].strip() for line in lines[2:5]] == ["project", "rounds", "strategy"]
