"""The pages of the reference, made from what the program says: docstrings, help texts, registries."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from itertools import chain, groupby
from typing import Any, get_args

import click
import typer

import lethe
from app.cli.commands import app
from app.cli.looking import needs_in_words
from app.config.reference import all_keys
from app.report.wording import listed
from strategies import registry
from strategies.core.conditions import shown
from strategies.core.traits import Traits
from strategies.tasks.choice import OWNERS, task_of
from strategies.tasks.settings import TaskSettings
from unlearning.methods import METHODS, Method
from unlearning.settings import ForgetSettings

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_ARGUMENT = re.compile(r", (?=\*?\w+(: | =|[,)=]))|(?<=\()(?=\w)")
"""Where a line may end in a signature."""
_ITEMS = ("Parameters", "Attributes", "Returns", "Raises", "Yields")
_SCALE = 1.0
"""A regression has metrics only with some scale."""


@cache
def pages() -> Mapping[str, str]:
    """Return the text of every page, by its name."""
    return {
        "command-line": command_line(),
        "python": python(),
        "methods": methods(),
        "strategies": strategies(),
        "tasks": tasks(),
    }


# the command line


def command_line() -> str:
    """Return every command with its arguments and options, as typer has them."""
    head = (
        "# Command line\n\n```sh\nlethe --help\nlethe train --help\n```\n\nExit status: 0 done, 1 failed, "
        "2 bad input, 130 interrupted. What goes wrong is one line on stderr.\n"
    )
    return "\n".join([head, *(_command(path, command) for path, command in commands("lethe"))])


def commands(path: str, command: click.Command | None = None) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with the words that call it."""
    group = typer.main.get_command(app) if command is None else command
    if isinstance(group, click.Group):
        for name, child in group.commands.items():
            yield from commands(f"{path} {name}", child)
    if not isinstance(group, click.Group) or (command is not None and group.invoke_without_command):
        yield path, group


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    listed_ = [record for each in command.get_params(context) if (record := _parameter(each, context))]
    lines = [f"- `{names}`: {_sentence(text)}" for names, text in listed_]
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", f"`{usage}`", inspect.cleandoc(command.help or ""), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _parameter(each: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    found = each.get_help_record(context)
    return None if "--help" in each.opts else found


# Python


def python() -> str:
    """Return the public names of `lethe` with their signatures and docstrings."""
    module = prose(lethe.__doc__ or "").replace("```text", "```python", 1)
    first, _, rest = module.partition("\n\n")
    names = sorted(lethe.__all__, key=lambda name: (name[0].isupper(), name))
    return "\n".join(["# Python", "", first, "", rest, "", *(_public(n, getattr(lethe, n)) for n in names)])


def _public(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return _function(f"lethe.{name}", thing, "##")
    made = "" if issubclass(thing, Exception) else signature(name, thing)
    parts = [f"## lethe.{name}", made, documented(thing), *_members(name, thing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _members(name: str, kind: type) -> Iterator[str]:
    """Yield what a class has of its own, in the order of the source."""
    for member, value in vars(kind).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"### {name}.{member}\n\n{documented(value)}"
        elif callable(function := getattr(value, "__func__", value)) and not inspect.isclass(function):
            yield _function(f"{name}.{member}", function, "###")


def _function(name: str, function: Callable[..., Any], level: str) -> str:
    return f"{level} {name}\n\n{signature(name.rpartition('.')[2], function)}\n\n{documented(function)}\n"


def signature(name: str, function: Callable[..., Any]) -> str:
    """Return how something is called, as a block of Python; a long one has a line per argument."""
    try:
        found = inspect.signature(function)
    except ValueError:
        return ""
    text = f"{name}{_plain(found)}"
    if len(text) > 100:
        text = _ARGUMENT.sub(lambda found: f"{found[0].rstrip()}\n    ", text)
    return f"```text\n{text}\n```"


def _plain(found: inspect.Signature) -> str:
    """Return a signature without the modules of its types and without self."""
    kept = [each for each in found.parameters.values() if each.name not in {"self", "cls"}]
    text = str(found.replace(parameters=kept)).replace("'", "")
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text)


def documented(thing: Any) -> str:
    """Return a NumPy docstring as Markdown: prose, then a list for each section."""
    text = inspect.getdoc(thing) or ""
    first, *rest = _SECTION.split(text)
    parts = [prose(first)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        shown_body = _listed(body) if title in _ITEMS else f"```pycon\n{body.strip()}\n```"
        parts.append(f"**{title}**\n\n{shown_body}")
    return "\n\n".join(part for part in parts if part)


def _listed(body: str) -> str:
    """Return the entries of a section as a list: a name, or names, each with its text."""
    items: list[str] = []
    for block in re.split(r"\n(?=\S)", body.strip("\n")):
        name, _, text = block.partition("\n")
        words = " ".join(inspect.cleandoc(text).split())
        items.append(f"- `{name}`: {prose(words)}" if words else f"- {prose(name)}")
    return "\n".join(items)


def prose(text: str) -> str:
    """Return a docstring's prose as Markdown: formulae as blocks, and nothing else read as markup."""
    cleaned = inspect.cleandoc(text).replace("::\n", "\n").replace("``", "`")
    parts = [part for part in re.split(r"\n{2,}", cleaned) if part.strip(" :\n")]
    kinds = groupby(parts, key=lambda part: part.startswith("    "))
    joined = (["\n\n".join(each)] if is_formula else list(each) for is_formula, each in kinds)
    return "\n\n".join(_block(part) for part in chain.from_iterable(joined))


def _block(part: str) -> str:
    if part.startswith("    "):
        return f"```text\n{inspect.cleandoc(part)}\n```"
    pieces = part.split("`")
    return "`".join(re.sub(r"([<*_|])", r"\\\1", p) if i % 2 == 0 else p for i, p in enumerate(pieces))


# the registries


def methods() -> str:
    """Return every forgetting method: what it serves, needs, costs and promises, its keys and its source."""
    head = (
        "# Forgetting methods\n\n```sh\nlethe methods\nlethe forget RUN --client 3 --method finetune\n```\n\n"
        "[Forgetting explained](../forgetting.md) shows each. [methods.md](../methods.md) says how "
        "the default is chosen and what an audit measures.\n"
    )
    return "\n".join([head, *map(_method, METHODS.values())])


def _method(method: Method) -> str:
    needs = needs_in_words(method.needs(ForgetSettings()))
    facts = {
        "requests": ", ".join(sorted(method.serves)),
        "needs": listed(needs) or "nothing",
        "cost": method.cost,
        "guarantee": method.guarantee,
        "source": method.source,
    }
    rows = "\n".join(f"- **{name}**: {value}" for name, value in facts.items())
    text = prose(import_module(method.run.__module__).__doc__ or "")
    own = _keys(f"forget.{method.name}.")
    return f"## {method.name}\n\n{_sentence(method.summary)}\n\n{rows}\n\n{text}\n\n{own}".rstrip() + "\n"


def strategies() -> str:
    """Return every strategy: its paper, its keys, and what it can be combined with."""
    head = (
        "# Strategies\n\n```sh\nlethe train --set strategy.name=fedprox --set strategy.mu=0.1\n```\n\n"
        "[Which strategy do I choose?](../strategies.md) has them in one table; "
        "[matrix.md](../matrix.md) says which methods forget in each.\n"
    )
    return "\n".join([head, *map(_strategy, registry.all_traits())])


def _strategy(traits: Traits) -> str:
    text = prose(import_module(registry.module_of(traits.name)).__doc__ or "")
    facts = "\n".join(f"- {fact}" for fact in _facts(traits))
    own = _keys(*traits.keys)
    return f"## {traits.shown_name}".replace("<", "\\<") + f"\n\n{text}\n\n{facts}\n\n{own}".rstrip() + "\n"


def _facts(traits: Traits) -> Iterator[str]:
    """Yield what must be known of a strategy, in sentences."""
    no = [*([] if traits.encodes else ["compression"]), *([] if traits.noised else ["privacy units"])]
    no += ["secure aggregation", "encryption"] if traits.hidden == "none" else []
    yield f"**needs**: {traits.public_data}" if traits.public_data else "**needs**: no public data"
    yield (
        f"**not with**: {listed(no)}" if no else "**goes with** compression, privacy units, masks, encryption"
    )
    if traits.only_retraining:
        yield f"**forgetting**: only retraining, as {traits.only_retraining}"
    if traits.only_clients:
        yield f"**forgetting**: whole clients only, as {traits.only_clients}"


def tasks() -> str:
    """Return every task: what it says of itself, its figures and its keys."""
    head = (
        "# Tasks\n\n```sh\nlethe train --set task.name=classification --set task.metric=f1\n```\n\n"
        "[Tasks and their figures](../tasks.md) says what figures there are, and how to write a task.\n"
    )
    names = [name for name in get_args(TaskSettings.model_fields["name"].annotation) if name != "auto"]
    return "\n".join([head, *map(_task, names)])


def _task(name: str) -> str:
    scale = _SCALE if OWNERS["scale"] == name else 0.0
    task = task_of(TaskSettings.model_validate({"name": name, "scale": scale}))
    figures = ", ".join(f"`{each}`" for each in task.metrics(2)) or "none"
    facts = (
        f"- **score**: `{task.figure}`\n- **headline**: `{task.headline}`\n- **further figures**: {figures}"
    )
    own = _keys(*(f"task.{field.replace('_', '-')}" for field, owner in OWNERS.items() if owner == name))
    return f"## {name}\n\n{documented(type(task))}\n\n{facts}\n\n{own}".rstrip() + "\n"


def _keys(*beginnings: str) -> str:
    """Return the keys that begin so or are named so, each with its default, range and meaning."""
    found = [
        key
        for key in all_keys()
        if any(key.key == b or (b[-1] == "." and key.key.startswith(b)) for b in beginnings)
    ]
    return "\n".join(f"- `{k.key}` = `{shown(k.default)}`, {k.allowed}. {prose(k.meaning)}" for k in found)


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return f"{words[:1].upper()}{words[1:]}".rstrip(".") + "." if words else ""
