"""The project's own files: manifests agree, versions fit, the bundle is whole, lint really fails."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from strategies.registry import _MODULES, PLAIN, all_traits
from tests.fresh_starts import FreshStarts
from tests.secret_seeds import secret_seeds

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "strategies", "unlearning")


def manifest(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def constraints() -> dict[str, str]:
    """Return the version of every package of constraints.txt; a line of another form is an error."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)", line)
        assert match, line
        pins[canonicalize_name(match[1])] = match[2]
    return pins


def sources(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for package in PACKAGES
        for path in (folder / package).rglob("*.py")
    }


def lint(code: str) -> str:
    """Return what ruff finds in code that stands in a file of `strategies`."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--output-format=concise",
        "--stdin-filename=strategies/x.py",
        "-",
    ]
    return subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False).stdout


# manifests


def test_both_manifests_describe_the_same_app() -> None:
    package, bundle = manifest("pyproject.toml"), manifest("pyproject-flwr.toml")
    assert package["tool"]["flwr"] == bundle["tool"]["flwr"]
    for key in ("name", "version", "description", "license", "requires-python"):
        assert package["project"][key] == bundle["project"][key]


def test_the_bundle_brings_no_dependencies() -> None:
    assert manifest("pyproject-flwr.toml")["project"]["dependencies"] == []


def test_every_requirement_is_pinned_within_its_range() -> None:
    project, pins = manifest("pyproject.toml")["project"], constraints()
    requirements = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, requirements):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


_FOREIGN = re.compile(
    r"\b(pipx?|uvx?|conda|poetry)\b[^|\n#]*[ ][\"']?le[t]he(?![\w./-])|\ble[t]he\[", re.IGNORECASE
)
"""A command that would install the package of that name from an index, which is somebody else's."""


@pytest.mark.parametrize(
    "text",
    ["pip install {0}", "uv pip install -q {0}", 'pip install "{0}[ckks]"', "pipx install {0}==1", "uvx {0}"],
)
def test_a_command_that_installs_somebody_elses_package_is_found(text: str) -> None:
    assert _FOREIGN.search(text.format("le" + "the"))


@pytest.mark.parametrize(
    "text", ["pip install lethe-fl", 'uv pip install "lethe-fl[onnx]"', "pip install -e ."]
)
def test_a_command_that_installs_this_package_is_fine(text: str) -> None:
    assert not _FOREIGN.search(text)


def test_no_text_names_somebody_elses_package() -> None:
    """On an index the distribution is called lethe-fl; texts name that, or the checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    found = []
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            text = (ROOT / name).read_bytes().decode("utf-8", errors="ignore")
            found += [f"{name}: {match[0]}" for match in _FOREIGN.finditer(text)]
    assert not found


# the house


def _names_of(algorithm: str) -> re.Pattern[str]:
    """Return what finds an algorithm's name in any spelling: with hyphens, underscores, or neither."""
    spelt = r"[-_ ]?".join(algorithm.split("-"))
    return re.compile(rf"(?<![a-z]){spelt}(?![a-z])", re.IGNORECASE)


_APART = {
    *(
        (f"unlearning/{half}/redistill.py", "fedmd")  # A method that works on nothing but its log
        for half in ("methods", "traits")
    ),
    ("strategies/flower/flower.py", "fedadam"),  # A class of Flower's
    ("strategies/flower/flower.py", "fedprox"),  # The same
}


@pytest.mark.parametrize("name", [traits.name for traits in all_traits() if traits.name != PLAIN])
def test_no_algorithm_is_named_outside_its_own_folder(name: str) -> None:
    """Neither as text nor as an identifier: what others must know of it, its traits say."""
    home = str(Path(_MODULES[name].replace(".", "/")).parent)
    found = []
    for path in sorted(p for folder in PACKAGES for p in (ROOT / folder).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith((f"{home}/", "strategies/registry.py")) or (place, name) in _APART:
            continue
        lines = [place, *path.read_text(encoding="utf-8").splitlines()]
        found += [f"{place}:{i}: {line}" for i, line in enumerate(lines) if _names_of(name).search(line)]
    assert found == []


_ABOVE = {"strategies.rounds", "strategies.plan", "strategies.layers.stack", "strategies.analytics"}
"""What is made of algorithms, and so imported by none."""


@pytest.mark.parametrize("name", [traits.name for traits in all_traits()])
def test_an_algorithm_imports_no_other_one_and_nothing_above_it(name: str) -> None:
    """But for plain averaging, on which most are built."""
    home = _MODULES[name] if name == PLAIN else _MODULES[name].rpartition(".")[0]
    others = {_MODULES[t.name].rpartition(".")[0] for t in all_traits() if t.name != PLAIN} - {home}
    place = ROOT / home.replace(".", "/")
    files = [place.with_suffix(".py")] if name == PLAIN else sorted(place.glob("*.py"))
    assert files
    for path in files:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        imported = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        wrong = {m for m in imported for bad in others | _ABOVE if m == bad or m.startswith(f"{bad}.")}
        assert not wrong, f"{path}: {wrong}"


_OUTPUTS = re.compile(r"cross_entropy|CrossEntropy|nll_loss|argmax|num_classes|bincount\(\w*y\b|NUM_CLASSES")
"""What is said of outputs and labels of a classifier."""
_OTHER_MEANING = {
    ("app/report/figures.py", "argmax"),  # Where the largest count lies
    ("app/data/synthetic.py", "argmax"),  # How the data set is made
    ("strategies/analytics/statistics.py", "argmax"),  # The first bin that a quantile lies in
    ("app/models/named.py", "num_classes"),  # An argument of torchvision's and timm's
    ("app/models/resnet.py", "num_classes"),  # An argument of torchvision's
}


def test_what_outputs_mean_is_said_in_the_task_alone() -> None:
    """Loss, prediction and number of outputs: all others ask a `Task`."""
    found, apart = [], set()
    for path in sorted(p for folder in PACKAGES for p in (ROOT / folder).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for match in _OUTPUTS.finditer(path.read_text(encoding="utf-8")):
            if (place, match[0]) in _OTHER_MEANING:
                apart.add((place, match[0]))
            elif place != "strategies/task.py" and not place.startswith("strategies/tasks/"):
                found.append(f"{place}: {match[0]}")
    assert found == []
    assert apart == _OTHER_MEANING


# the bundle


@pytest.mark.parametrize("name", ["pyproject.toml", "pyproject-flwr.toml"])
def test_the_bundle_holds_every_source_and_nothing_else(name: str, tmp_path: Path) -> None:
    """Flower leaves out files by name, such as `test_*.py`, without a word."""
    app = tmp_path / "lethe"
    app.mkdir()
    for folder in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / folder, app / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "lethe.py"):
        shutil.copy(ROOT / file, app)
    shutil.copy(ROOT / name, app / "pyproject.toml")
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as bundle:
        packed = set(bundle.namelist())
    assert packed == sources(app) | {"LICENSE", "lethe.py", "pyproject.toml", ".info/CONTENT"}


# lint


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import random\n", "TID251"),
        ("import torch\n\ntorch.manual_seed(0)\n", "TID251"),
        ("import numpy as np\n\nnp.random.seed(0)\n", "TID251"),
        ("import numpy as np\n\nx = np.random.rand(3)\n", "NPY002"),
        ("import secrets\n\nsecrets.randbits(62)\n", "TID251"),
        ("import secrets\n\nsecrets.SystemRandom()\n", "TID251"),
        ("import pickle\n", "TID251"),
        ("import torch\n\ntorch.save({}, 'x')\n", "TID251"),
        ("from flwr.server import strategy\n", "TID251"),
        ("try:\n    x = 1\nexcept Exception:\n    pass\n", "BLE001"),
        ("def public() -> None:\n    pass\n", "D103"),
        ("def public(x) -> None:\n    '''Do.'''\n", "ANN001"),
    ],
)
def test_lint_finds(code: str, rule: str) -> None:
    assert f" {rule} " in lint(code)


@pytest.mark.parametrize(
    "code",
    [
        "torch.Generator().manual_seed(secrets.randbits(63))",
        "generator.manual_seed(secrets.randbits(63) if secret else seed)",
        "seed = derived if seeded else secrets.randbits(62)\ntorch_generator(seed, 'poisson')",
        "key = os.urandom(32)\nnumber = int.from_bytes(key)\nx = numpy_generator(seed=number).normal()",
        "from secrets import token_bytes\nnp.random.default_rng(list(secrets.token_bytes(16)))",
        "def f():\n    if (n := secrets.randbelow(9)):\n        return derive_seed(n, 'noise')",
        "drawn: int = os.urandom(8)[0]\nnp.random.SeedSequence([drawn])",
    ],
)
def test_a_secret_that_seeds_a_generator_is_found(code: str) -> None:
    assert secret_seeds(code)


def test_no_secret_seeds_a_generator() -> None:
    """Keys may be drawn; torch's generator keeps 32 bits of whatever seeds it."""
    assert not secret_seeds("key = secrets.token_bytes(32)\ntorch_generator(seed)\nRandomStream(key)")
    files = [path for folder in (*PACKAGES, "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path): secret_seeds(path.read_text(encoding="utf-8")) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert len(files) > 200


def test_lint_passes_what_is_right() -> None:
    code = '"""A module."""\n\nfrom flwr.serverapp import strategy\n\n__all__ = ["strategy"]\n'
    assert lint(code) == "All checks passed!\n"


def test_names_that_others_import_by_stay(fresh_starts: FreshStarts) -> None:
    """Each in a fresh interpreter, so that no other import prepares the way."""
    for name, parts in {
        "strategies.wire": "NUM_EXAMPLES, Layout, reply_to",
        "strategies.update_log": "UpdateLog",
        "app.config": "RunConfig",
        "app.config.settings": "DataSettings",
        "unlearning.audit": "AuditReport, audit",
        "unlearning.audit.metrics": "accuracy",
        "unlearning.request": "ForgetRequest",
    }.items():
        fresh_starts.run(f"from {name} import {parts}")
