"""``lethe config``: every key of the run config, one key, or whether a file is right."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import options, output
from app.config.reference import Key, all_keys, key_named
from app.config.run_config import RunConfig, check_key
from strategies.core.conditions import shown

config = typer.Typer(
    help="List the keys of the run config, explain one, or check a file.", invoke_without_command=True
)


@config.callback()
def listing(context: typer.Context, json: options.Json = False) -> None:
    """List every key with its default and what is allowed."""
    if context.invoked_subcommand is not None:
        return
    keys = all_keys()
    if json:
        output.print_json({"keys": [key.to_json() for key in keys]})
        return
    output.print_table(["key", "default", "allowed"], [[k.key, shown(k.default), k.allowed] for k in keys])


@config.command()
def explain(key: Annotated[str, typer.Argument(metavar="KEY")], json: options.Json = False) -> None:
    """Explain one key: what it does, what is allowed, and when it has an effect."""
    check_key(key, key)
    entry = key_named(key)
    if json:
        output.print_json(entry.to_json())
        return
    _print_explained(entry)


@config.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file.")],
    overrides: options.Overrides = None,
    json: options.Json = False,
) -> None:
    """Check a file as a run would read it, and print what differs from the defaults."""
    found, defaults = RunConfig.resolve(file, overrides or []).to_flat(), RunConfig().to_flat()
    changed = {key: value for key, value in found.items() if value != defaults.get(key)}
    if json:
        output.print_json({"file": str(file), "changed": changed})
        return
    output.print_line(f"{file}: right; {len(changed)} of {len(all_keys())} keys differ from their defaults")
    for key, value in changed.items():
        output.print_line(f"{key} = {shown(value)}")


def _print_explained(entry: Key) -> None:
    output.print_line(f"{entry.key} = {shown(entry.default)}")
    output.print_line(f"allowed: {entry.allowed}")
    output.print_line(entry.meaning.replace("``", ""))
    for needed in entry.only_with:
        output.print_line(f"only with {needed}")
