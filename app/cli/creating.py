"""``lethe new``."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import options, output


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project, its folder and its package.")],
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar="KIND",
            help="tabular, images or minimal.",
            autocompletion=options.one_of("tabular", "images", "minimal"),
        ),
    ] = "tabular",
    json: options.Json = False,
) -> None:
    """Write a small Flower project of your own, with model, data and task, which works at once."""
    from app.templates.writing import write_project

    folder = write_project(name, template, Path.cwd())
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    if json:
        output.print_json({"project": name, "path": str(folder), "files": files})
        return
    output.print_line(f"{folder}:")
    for file in files:
        output.print_line(f"  {file}")
    output.print_line(f"your model, data and task: {name}/{name.replace('-', '_')}/project.py")
    output.print_line(f"next: cd {name} && lethe train")
