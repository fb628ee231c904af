"""Every key of the run config with its type, default, meaning and reader, from the classes that hold them.

Both manifests and docs/config.md are written from here, by ``python -m app.config.reference``.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.config.rules import CONDITIONS
from app.config.run_config import RunConfig, allowed_values, known_fields, method_fields, method_in
from strategies.core.conditions import shown
from strategies.core.settings import Scalar, Settings, hyphenated
from strategies.core.traits import Traits
from strategies.registry import all_traits
from unlearning.registry import names, settings_of

MANIFESTS = ("pyproject.toml", "pyproject-flwr.toml")
PAGE = "docs/config.md"
_WIDTH = 140
_ATTRIBUTE = re.compile(r"^(\w+)(?: : .*)?\n((?:    .*(?:\n|$)|\n)+)", re.MULTILINE)
_TABLE = "[tool.flwr.app.config]\n"
_PAGE_HEAD = """# Every key of the run config

`lethe config` lists them, `lethe config explain KEY` explains one, `lethe config check FILE` checks a file.

Give a key with `--set KEY=VALUE`, in a TOML file with `--config FILE`, or with `flwr run --run-config`. A key
that would have no effect is refused if it differs from its default. This page is written by `make generate`.
"""


@dataclass(frozen=True)
class Key:
    """A key of the run config, with its section.

    `allowed` is its type and range in words, `meaning` what it does, with its unit and its neutral value;
    `only_with` says when it has an effect, if that is not always.
    """

    key: str
    allowed: str
    default: Scalar
    meaning: str
    only_with: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return asdict(self)


def all_keys() -> list[Key]:
    """Return every key, in the order of the manifests."""
    return _keys(names())


def key_named(key: str) -> Key:
    """Return the one key of a name, which is known; no method is imported."""
    method = method_in(key)
    return next(entry for entry in _keys([method] if method else []) if entry.key == key)


def _keys(of_methods: Iterable[str]) -> list[Key]:
    """Return the keys of all sections, and those that the named methods have of their own."""
    fields = dict(known_fields())
    meanings: dict[str, str] = {}
    for name in RunConfig.model_fields:
        meanings |= _meanings(name, type(getattr(RunConfig(), name)))
    for name in of_methods:
        meanings |= _meanings(f"forget.{name}", settings_of(name))
        fields |= method_fields(name)
    needs: dict[str, list[str]] = {}
    for condition in CONDITIONS:
        for key in condition.keys:
            needs.setdefault(key, []).append(condition.words)
    order = list(RunConfig.model_fields)
    return [
        Key(key, allowed_values(field), field.default, meanings[key], tuple(needs.get(key, ())))
        for key, field in sorted(fields.items(), key=lambda item: order.index(item[0].partition(".")[0]))
    ]


def _meanings(section: str, kind: type[Settings]) -> dict[str, str]:
    """Return the meaning of each key of a section, from the docstrings of the classes that hold it."""
    found: dict[str, str] = {}
    for holder in kind.__mro__:
        text = inspect.cleandoc(holder.__doc__ or "")
        _, _, attributes = text.partition("Attributes\n----------\n")
        for name, meaning in _ATTRIBUTE.findall(attributes):
            found.setdefault(f"{section}.{hyphenated(name)}", " ".join(meaning.split()))
    return found


def manifest(text: str) -> str:
    """Return a manifest with every key at its default."""
    head, table, rest = text.partition(_TABLE)
    following = re.search(r"^\[", rest, re.MULTILINE)
    after = "" if following is None else f"\n{rest[following.start() :]}"
    sections: dict[str, list[str]] = {}
    for key in all_keys():
        line = f"{key.key} = {shown(key.default)}\n"
        sections.setdefault(key.key.partition(".")[0], []).append(line)
    return f"{head}{table}{chr(10).join(''.join(lines) for lines in sections.values())}{after}"


def page() -> str:
    """Return docs/config.md."""
    parts, every = [_PAGE_HEAD], all_keys()
    for name in RunConfig.model_fields:
        keys = [key for key in every if key.key.partition(".")[0] == name]
        owners = [traits for traits in all_traits() if name == "strategy" and traits.keys]
        listed = "".join(f"- `{owner.shown_name}` reads {_listed(owner)}.\n" for owner in owners)
        parts.append("\n".join([f"## {name}\n", *([listed] if listed else []), *map(_entry, keys)]))
    return "\n".join(parts)


def _listed(owner: Traits) -> str:
    return ", ".join(f"`{key}`" for key in owner.keys)


def _entry(key: Key) -> str:
    only = f" Only with {'; and '.join(key.only_with)}." if key.only_with else ""
    text = f"**`{key.key}`** = `{shown(key.default)}`, {key.allowed}. {key.meaning}{only}".replace("``", "`")
    return (
        textwrap.fill(text, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False)
        + "\n"
    )


def generated(root: Path) -> dict[Path, str]:
    """Return the content of each generated file."""
    files = {root / name: manifest((root / name).read_text(encoding="utf-8")) for name in MANIFESTS}
    return {**files, root / PAGE: page()}


def main(arguments: list[str]) -> int:
    """Write the generated files, or with ``--check`` name those that are stale; return the exit status."""
    root = Path.cwd()
    stale = {
        path: text
        for path, text in generated(root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if "--check" in arguments:
            sys.stderr.write(f"{path.relative_to(root)}: stale; run make generate\n")
        else:
            path.write_text(text, encoding="utf-8")
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
