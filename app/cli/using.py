"""``lethe predict`` and ``lethe export``."""

import csv
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.report.wording import printable
from strategies.core.errors import BadInput
from strategies.runs.files import not_written, to_json

if TYPE_CHECKING:
    from app.use import Subject

Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN[/forget/NAME]",
        help="A run, or a forgetting in it: its name under the home, or the path of its folder.",
        autocompletion=options.places_beginning,
    ),
]
Client = Annotated[
    str,
    typer.Option("--client", metavar="ID", help="The model of one client, where each has one of its own."),
]
_SUFFIXES = (".csv", ".jsonl")


def predict(
    run: Model,
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", help="A csv, parquet or npz file, an image, or a folder of images."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            metavar="FILE",
            help="Where to write: .csv or .jsonl; default: csv on stdout.",
        ),
    ] = None,
    client: Client = "",
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Predict with a run's model, or with one after a forgetting; the data need no targets."""
    if out is not None and out.suffix.lower() not in _SUFFIXES:
        raise BadInput(f"--out: given {out}, allowed a file that ends in {' or '.join(_SUFFIXES)}")
    subject = _subject(run, client, options.only_home("predict", overrides, home))
    from app.data.unlabelled import read_inputs
    from app.use import rows_of

    inputs = read_inputs(data, subject.wanted)
    rows = rows_of(subject, inputs)
    described = {"model": subject.name, "model-sha256": subject.sha256, "client": client or None}
    if out is not None:
        count = _write(rows, out)
        answer = {**described, "predictions": count, "path": str(out)}
        output.print_json(answer) if json else output.print_line(f"{count} predictions: {out}")
    elif json:
        output.print_json({**described, "predictions": list(rows)})
    else:
        _write_csv(rows, sys.stdout)
    _say((*subject.notes, *inputs.notes))


def export(  # noqa: PLR0913, PLR0917  # a parameter per option
    run: Model,
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="torch, onnx or safetensors.",
            autocompletion=options.one_of("torch", "onnx", "safetensors"),
        ),
    ] = "torch",
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            metavar="FOLDER",
            help="A new folder; default: NAME-FORMAT in the current one.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", help="Inputs of whose shape the model is, where the run cannot say."
        ),
    ] = None,
    client: Client = "",
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Export a model for programs without Lethe, with a page of how to load it."""
    subject = _subject(run, client, options.only_home("export", overrides, home))
    from app.data.unlabelled import read_inputs
    from app.use import export as write_export

    example = None
    if data is not None:
        import torch

        example = read_inputs(data, subject.wanted).examples.batch(torch.tensor([0]))[0]
    place = out or Path(f"{subject.name.replace('/', '-')}-{kind}")
    found = write_export(subject, kind, place, example)
    _say(subject.notes)
    if json:
        output.print_json({**found.description, "path": str(found.path), "files": list(found.files)})
        return
    output.print_line(f"{subject.name}: exported as {kind}; {found.path / 'README.txt'} says how to load it")
    for file in found.files:
        output.print_line(f"  {found.path / file}")


def _subject(run: str, client: str, home: Path | None) -> "Subject":
    from app import workflows
    from app.use import open_subject

    folder, forgetting = workflows.find_place(run, options.home_path(home))
    return open_subject(folder, forgetting, client)


def _say(notes: Iterable[str]) -> None:
    """Print notes on what was done; a refusal is one line, and has none."""
    for text in notes:
        typer.echo(f"note: {printable(text)}", err=True)


def _write(rows: Iterable[Mapping[str, Any]], out: Path) -> int:
    """Write rows to a file, all of it or nothing, and return how many they are."""
    lines = out.suffix.lower() == ".jsonl"
    with _whole(out) as file:
        return _write_lines(rows, file) if lines else _write_csv(rows, file)


@contextmanager
def _whole(out: Path) -> Iterator[IO[str]]:
    """Open a file that takes its place when it is complete; nothing is left behind of one that is not."""
    if not out.absolute().parent.is_dir():
        raise BadInput(f"--out: given {out}, but there is no folder {out.absolute().parent}")
    try:
        with NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=out.absolute().parent, prefix=f".{out.name}-", delete=False
        ) as file:
            made = Path(file.name)
            try:
                yield file
                file.flush()
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        made.chmod(0o666 & ~_umask())
        made.replace(out)
    except OSError as error:
        raise not_written(out, error) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_lines(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> int:
    count = 0
    for row in rows:
        file.write(to_json(row) + "\n")
        count += 1
    return count


def _write_csv(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> int:
    rest = iter(rows)
    first = next(rest)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(first)
    count = 0
    for row in itertools.chain([first], rest):
        writer.writerow([_cell(value) for value in row.values()])
        count += 1
    return count


def _cell(value: object) -> object:
    """Return a value as a csv cell: names of labels joined by semicolons, masks and vectors as JSON."""
    if not isinstance(value, list):
        return value
    return ";".join(value) if all(isinstance(each, str) for each in value) else to_json(value)
