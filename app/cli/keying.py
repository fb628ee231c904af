"""``lethe keys``."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import options, output


def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the keys go; what is there stays.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="How clients reach the SuperLink; repeatable."),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="ID", help="A client-id; repeatable.")
    ] = None,
    encryption: Annotated[
        bool, typer.Option("--encryption", help="Also the key with which clients encrypt their updates.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Make the keys of a deployed federation: authority, SuperLink's certificate, clients' keys."""
    from app.deployment.federation_keys import make_keys

    found = make_keys(folder, host or (), client or (), encryption=encryption)
    if json:
        output.print_json({"folder": str(found.folder), "made": [str(path) for path in found.made]})
        return
    for path in found.made:
        output.print_line(str(path))
    if not found.made:
        output.print_line(f"{found.folder}: all keys are there already")
