"""Every command and every snippet of the documentation: all are read, and a page's commands are carried out.

The quick test reads each line as the program would: options by the command line's own parser, keys and values
by the run config. `make check` carries out each page in a fresh home, in order and with less training, in
this process where the command is `lethe`, else in a shell.
"""

import ast
import doctest
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from flwr.common.config import parse_config_args

import lethe
from app.cli import entry
from app.cli.commands import app
from app.config.run_config import RunConfig, parse_overrides
from benchmarks import module_of
from docs.reference import pages as generated
from tests.reader import (
    ROOT,
    User,
    beginning,
    blocks,
    commands,
    environment_of,
    reading,
    write_csv,
    write_images,
    write_table,
)

DOCS = ROOT / "docs"
MNIST = ROOT.parent / "shared" / "data"
TEXTS = {
    "README.md": (ROOT / "README.md").read_text(encoding="utf-8"),
    **{
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(DOCS.rglob("*.md"))
    },
}
OTHERS = {
    "README.md": "tests/test_readme.py and tests/test_docs.py run it",
    "benchmarks.md": "hours; tests/benchmarks runs each benchmark at a small size",
    "evidence.md": "hours; tests/benchmarks runs each benchmark at a small size",
    "deploy.md": "tests/deployed/test_documented_steps.py pastes its steps into shells",
    "examples/README.md": "tests/docs/test_examples.py runs the examples",
    "matrix.md": "minutes; tests/docs/test_matrix.py runs columns of it",
}
"""Pages that are not carried out here, and who does it."""
LEFT_OUT = {
    "git clone": "the checkout is there",
    "make setup": "the environment is there",
    ". .venv/bin/activate": "changes a shell",
    "export ": "changes a shell; here it is set anyway",
    "pip install": "what it brings is installed",
    "lethe watch": "waits; tests/app/watching open the page",
    "tensorboard": "waits, and is another program",
    "make docs": "tests/docs/test_site.py builds it",
    "lethe demo": "the README's first command",
    "cd docs/examples && python batch_norm.py": "tests/docs/test_examples.py runs it",
    "lethe train --set run.project=hospital.project": "the project is the reader's; own-work.md has one",
    "flwr run . superlink --run-config \"run.workflow='continue'": "tests/deployed/test_deployed.py",
    "lethe train --set task.name=regression --set task.scale-from": "needs a reader's table of numbers",
    "flwr run . --stream --run-config \"run.workflow='analytics'": "tests/deployed/test_masked.py asks so",
}
"""Beginnings of commands that are not carried out, and why."""
_LITTLE = "--set model.name=mlp --set data.train-limit=300"
REPLACED = {
    "lethe train --set data.name=mnist": (
        "--set data.root=/data --set data.download=true",
        f"--set data.root={MNIST} --set data.train-limit=400 --set data.test-limit=100",
    ),
    "lethe train --set data.name=folder:scans": (
        "--set data.size=32",
        "--set data.size=16 --set run.name=RUN",
    ),
    "lethe train --set data.folder-of-clients=hospitals": (
        "lethe train",
        "lethe train --set run.name=HOSPITALS",
    ),
    "lethe forget RUN --client oslo": ("RUN", "HOSPITALS"),
    "lethe train --set model.name=torchvision:": ("lethe train", "lethe train --set data.train-limit=100"),
    "lethe train --set strategy.name=fedmd": (
        "lethe train",
        "lethe train --set strategy.models=mlp-16,mlp-32 --set strategy.public-epochs=1 "
        "--set strategy.private-epochs=1",
    ),
    "lethe train --set privacy.unit=example": ("lethe train", f"lethe train {_LITTLE}"),
    "lethe train --set strategy.name=pruned-dp": ("lethe train", f"lethe train {_LITTLE}"),
    "lethe audit first --client 3 --shadows": ("16", "3"),
    "lethe train --continue": ("--rounds 10", "--rounds 1"),
    "lethe train --continue first/forget/": ("--rounds 10", "--rounds 1 --set run.name=after"),
    "lethe train --set strategy.name=one-shot": ("train.local-epochs=20", "train.local-epochs=1"),
    "lethe train --set strategy.name=coded-gd --set strategy.stragglers=2 --set run.rounds": ("=50", "=1"),
    "lethe train --set strategy.name=fedbuff": ("run.rounds=30", "run.rounds=3"),
}
"""Beginnings of commands of which a part is replaced: the part, and what stands in its place."""
SHORT = " --set run.rounds=1"


@dataclass(frozen=True)
class Given:
    """What a page takes for granted: files, and commands that come before its own."""

    files: Callable[[Path], object] = lambda folder: None
    before: tuple[str, ...] = ()


A_RUN = ("lethe train --set run.name=RUN",)


def _own_data(folder: Path) -> None:
    write_table(folder / "patients.npz")
    write_csv(folder / "patients.csv")
    write_images(folder / "scans", ("melanoma", "nevus"))
    for name in ("berlin", "oslo", "rome"):
        write_csv(folder / "hospitals" / f"{name}.csv")


def _a_sweep(folder: Path) -> None:
    """Write the page's own file, for less work."""
    (text,) = blocks(TEXTS["sweep.md"], "toml")
    assert "trials = 20" in text
    shorter = text.replace("trials = 20", "trials = 2") + "\n[run]\nrounds = 1\n"
    (folder / "rates.toml").write_text(shorter, encoding="utf-8")


def _a_table(folder: Path) -> None:
    write_csv(folder / "new.csv")


GIVEN: Mapping[str, Given] = {
    "audit.md": Given(before=("lethe train --set run.name=first",)),
    "data.md": Given(_own_data),
    "diagnose.md": Given(before=A_RUN),
    "forgetting.md": Given(lambda f: (f / "gone.json").write_text('{"3": [0, 17]}', encoding="utf-8"), A_RUN),
    "methods.md": Given(before=A_RUN),
    "report.md": Given(
        before=tuple(f"lethe train --set run.name={name}" for name in ("first", "second", "third"))
    ),
    "sweep.md": Given(_a_sweep),
    "use.md": Given(
        _a_table,
        (
            "lethe train --set run.name=first --set data.name=csv:new.csv --set data.target=ill "
            "--set model.name=mlp --set data.scale=federated --set data.clients=4",
            "lethe forget first --client 3 --method distill",
        ),
    ),
    "runs.md": Given(
        before=(
            "lethe train --set run.name=first",
            "lethe train --set run.name=second",
            "lethe forget first --client 3 --method subtract",
            "lethe forget first --client 1 --method subtract",
        )
    ),
    "models.md": Given(
        before=(
            "lethe train --set run.name=first-run",
            "lethe forget first-run --client 3 --method retrain",
            "cp ~/.lethe/runs/first-run/model.safetensors encoder.safetensors",
        )
    ),
}


# reading


@cache
def _root() -> click.Group:
    found = typer.main.get_command(app)
    assert isinstance(found, click.Group)
    return found


def read(line: str) -> None:
    """Read a command as the program would; raise what it would say."""
    for part in re.split(r"\s&&\s|\s\|\s", line):
        words = shlex.split(part.rstrip(" &"), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        assert words[0] in READERS, f"nobody reads '{words[0]}'"
        READERS[words[0]](words)


def _lethe(words: list[str]) -> None:
    if words[-1] == "--help":
        words = words[:-1]
        assert words[1:2] == [] or words[1] in _root().commands
        return
    context, command, rest = click.Context(_root(), info_name="lethe"), _root(), words[1:]
    while isinstance(command, click.Group) and rest:
        name, command, rest = command.resolve_command(context, rest)
    context = command.make_context(name or "", rest, parent=context)
    given = context.params.get("overrides") or []
    if isinstance(method := context.params.get("method"), str) and method:
        given = [f"forget.method={method}", *given]
    if statistic := context.params.get("statistic"):
        given = ["run.workflow=analytics", f"analytics.statistic={statistic}", *given]
    RunConfig().with_overrides(given)
    if name == "bench":
        _bench(context.params["names"], context.params["set_"] or [])


def _bench(names: list[str], given: list[str]) -> None:
    options = {key.replace("-", "_"): value for key, value in parse_overrides(given).items()}
    for name in names:
        import_module(module_of(name)).Options.of(name, options)


def _flwr(words: list[str]) -> None:
    if words[1] == "run" and "--run-config" in words:
        keys = parse_config_args([words[words.index("--run-config") + 1]])
        RunConfig.from_flat(keys)


def _make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [word for word in words[1:] if not re.search(rf"^{word}:", makefile, re.MULTILINE)] == []


def _python(words: list[str]) -> None:
    if words[1] == "-c":
        ast.parse(words[2])
    elif words[1] != "-m":
        assert any((place / words[1]).is_file() for place in (ROOT, DOCS / "examples")), words[1]


def _pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert [e for word in words for e in re.findall(r"^\.\[(.*)\]$", word) if e not in extras] == []


def _shell(words: list[str]) -> None:
    """Read what is the shell's own, or another program's that a page's own test runs."""


READERS: Mapping[str, Callable[[list[str]], None]] = {
    "lethe": _lethe,
    "flwr": _flwr,
    "make": _make,
    "python": _python,
    "pip": _pip,
    **dict.fromkeys(
        (
            ".",
            "cd",
            "cmp",
            "export",
            "flower-superlink",
            "flower-supernode",
            "for",
            "git",
            "ls",
            "sha256sum",
            "tensorboard",
        ),
        _shell,
    ),
}


@pytest.mark.parametrize("page", [*TEXTS, *(f"reference/{name}" for name in generated())])
def test_every_command_and_snippet_can_be_read(page: str) -> None:
    text = TEXTS.get(page) or generated()[page.removeprefix("reference/")]
    for line in commands(text):
        try:
            read(line)
        except Exception as error:
            raise AssertionError(f"{page}: {line}") from error
    for block in blocks(text, "python"):
        parts = doctest.DocTestParser().get_examples(block)
        for source in [part.source for part in parts] or [block]:
            ast.parse(source)
    for block in blocks(text, "toml"):
        tomllib.loads(block)
    for block in blocks(text, "json"):
        json.loads(block)


def test_a_command_stands_in_no_block_of_another_kind() -> None:
    known = {"sh", "python", "toml", "json", "text", "pycon"}
    for page, text in TEXTS.items():
        kinds = re.findall(r"^```(.*)\n(?:(?!```).*\n)*```$", text, re.MULTILINE)
        others = [block for kind in set(kinds) - {"sh"} for block in blocks(text, kind)]
        assert set(kinds) - known - {""} == set(), page
        assert [
            b for b in others if re.search(r"^(lethe|flwr|make|pip) [a-z-]+ ?[^:]*$", b, re.MULTILINE)
        ] == [], page


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lethe train --sett a=1", "No such option"),
        ("lethe trane", "No such command"),
        ("lethe train --set run.round=3", "unknown key"),
        ("lethe train --set run.rounds=none", "run.rounds"),
        ("lethe bench forgetting --set nothing=1", "nothing"),
        ("lethe forget first --method none", "none"),
        ("flwr run . --run-config \"run.rounds='x'\"", "run.rounds"),
        ("make nothing", "nothing"),
        ("pip install -e '.[nothing]'", "nothing"),
        ("python nothing.py", "nothing"),
        ("wget x", "nobody reads 'wget'"),
    ],
)
def test_what_the_program_would_not_take_is_found(line: str, said: str) -> None:
    with pytest.raises((AssertionError, click.UsageError, ValueError, lethe.BadInput), match=said):
        read(line)


def test_each_page_is_carried_out_by_somebody_and_each_exception_is_of_something_that_is_there() -> None:
    assert set(OTHERS) <= set(TEXTS)
    assert set(GIVEN) <= set(TEXTS) - set(OTHERS)
    every = [line for page, text in TEXTS.items() if page not in OTHERS for line in commands(text)]
    named = {*LEFT_OUT, *REPLACED}
    assert {key for key in named if any(line.startswith(key) for line in every)} == named


# carrying out


@dataclass
class Walk:
    """Somebody who carries out the commands of a page, one after another."""

    home: Path
    folder: Path
    errors: Callable[[], Any]
    shell: Callable[[str, Path], Any]
    place: Path = field(init=False)

    def __post_init__(self) -> None:
        self.place = self.folder

    def carry_out(self, line: str) -> None:
        """Carry out a command as it stands, but for what is replaced and how long it trains."""
        if (key := beginning(line, REPLACED)) is not None:
            old, new = REPLACED[key]
            assert old in line
            line = line.replace(old, new)
        words = [
            str(self.home / word[2:]) if word.startswith("~/") else word
            for word in shlex.split(line, comments=True)
        ]
        if words[0] == "cd":
            self.place = self.place / words[1]
            os.chdir(self.place)
        elif words[0] == "lethe":
            longer = words[1] == "train" and not re.search(r"run.rounds=[1-9]\b|--continue", line)
            status = entry.run([*words[1:], *(shlex.split(SHORT) if longer else [])])
            assert status == 0, f"{line}\n{self.errors()}"
        else:
            done = self.shell(line, self.place)
            assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def _through_flower(page: str) -> bool:
    lines = [line for line in commands(TEXTS[page]) if beginning(line, LEFT_OUT) is None]
    return any(line.startswith("flwr run") for line in lines)


PAGES = [page for page, text in TEXTS.items() if page not in OTHERS and commands(text)]


@pytest.mark.check
@pytest.mark.parametrize("page", [page for page in PAGES if not _through_flower(page)])
def test_a_page_s_commands_work_in_their_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(folder)
    given = GIVEN.get(page, Given())
    given.files(folder)
    lines = [line for line in commands(TEXTS[page]) if beginning(line, LEFT_OUT) is None]
    if not MNIST.is_dir():
        lines = [line for line in lines if "data.name=mnist" not in line]
    user = User(home, folder, environment_of(home))
    walk = Walk(home, folder, capsys.readouterr, user.ran)
    for line in (*given.before, *lines):
        walk.carry_out(line)


@pytest.mark.check
@pytest.mark.parametrize("page", [page for page in PAGES if _through_flower(page)])
def test_a_page_s_commands_work_through_flower(page: str, tmp_path: Path) -> None:
    """All in shells, as what Flower leaves running is stopped by its home."""
    with reading(tmp_path, tmp_path) as user:
        for line in commands(TEXTS[page]):
            if beginning(line, LEFT_OUT) is None:
                done = user.ran(line, ROOT)
                assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
                assert "run folder: " in done.stdout + done.stderr


@pytest.mark.check
def test_own_work_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of own-work.md, with the README's project."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (readme,) = blocks(TEXTS["README.md"], "python")
    (lines,) = [block for block in blocks(TEXTS["own-work.md"], "python") if "open_run" in block]
    shorter = {
        "rounds=20, clients=10": "rounds=1, clients=4, config={'data.local-test-share': 0.2}, progress=False",
        'open_run("first")': "open_run(run.name, project)",
    }
    for old, new in shorter.items():
        assert old in lines
        lines = lines.replace(old, new)
    names: dict[str, Any] = {}
    exec(readme.partition("run = ")[0], names)
    names["inputs"] = names["torch"].zeros(3, 4)
    exec(lines, names)
    assert names["gone"].certificate
    assert names["run"].name
