"""The distribution: its wheel runs outside a checkout; Flower's hub and other Pythons take it."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from flwr.cli.build import build_fab_from_disk

publish = import_module("flwr.cli.app_cmd.publish")  # The package has a function of this name
ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "strategies", "unlearning")
NAME = "lethe-fl"


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def sources(folder: Path) -> Path:
    """Copy what is built from, so that a build leaves nothing in the checkout."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("lethe.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = sources(tmp_path_factory.mktemp("wheel"))
    (folder / "apples").mkdir()  # What merely begins like one of the packages is none of them
    (folder / "apples" / "__init__.py").touch()
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"),
        *("--disable-pip-version-check", "-w", folder / "dist", folder),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.mark.check
def test_the_wheel_holds_three_packages_and_lethe_py(wheel: Path) -> None:
    """With every source and every template, the licence and metadata, and nothing else."""
    metadata = "lethe_fl-0.1.0.dist-info"
    assert wheel.name == "lethe_fl-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        described = archive.read(f"{metadata}/METADATA").decode()
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for suffix in ("*.py", "*.jinja")
        for path in (ROOT / package).rglob(suffix)
    }
    others = {name for name in held - wanted if not name.startswith(f"{metadata}/")}
    assert others == {"lethe.py"}
    assert wanted <= held
    assert f"{metadata}/licenses/LICENSE" in held
    assert f"Name: {NAME}\n" in described


@pytest.mark.check
def test_the_wheel_runs_the_demo_outside_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """In an environment with the wheel, and with the libraries of this one but not its own Lethe."""
    place = tmp_path / "env"
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = (place / "lib").glob("python*/site-packages")
    (here,) = (path for path in map(Path, sys.path) if path.name == "site-packages")
    done = run(
        *(sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "-q", "--no-deps"),
        *("--no-index", "--disable-pip-version-check", wheel),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (packages / "libraries.pth").write_text(f"{here}\n")  # Its own .pth files are not read, so no Lethe there
    lethe = place / "bin" / "lethe"
    where = run(
        place / "bin" / "python", "-c", "import app, lethe; print(app.__file__, lethe.__file__)", cwd=tmp_path
    )
    assert where.returncode == 0, where.stderr
    assert all(Path(file).is_relative_to(packages) for file in where.stdout.split())
    assert run(lethe, "--version", cwd=tmp_path).stdout == "lethe 0.1.0\n"
    done = run(lethe, "demo", "--home", tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "verdict: " in done.stdout
    made = run(lethe, "new", "ward", cwd=tmp_path)
    assert made.returncode == 0, made.stderr


def test_flowers_hub_would_take_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the checks of ``flwr app publish`` itself, on what ``make bundle`` lays out; then ``flwr build``."""
    bundle = tmp_path / "lethe"
    bundle.mkdir()
    sources(bundle)
    shutil.copy(ROOT / "pyproject-flwr.toml", bundle / "pyproject.toml")
    manifest = tomllib.loads((bundle / "pyproject.toml").read_text(encoding="utf-8"))
    assert manifest["project"]["name"] == NAME
    assert len(manifest["project"]["description"]) < 200
    publish._validate_app_name(manifest["project"]["name"], "name")
    publish._validate_app_name(bundle.name, "folder")
    publish._validate_description(manifest["project"]["description"])
    paths = publish._collect_file_paths(bundle)
    publish._validate_files(paths)
    capsys.readouterr()
    sent = {path.relative_to(bundle).as_posix() for path in paths}
    assert {"LICENSE", "README.md", "lethe.py", "pyproject.toml", "app/server_app.py"} <= sent
    assert len(build_fab_from_disk(bundle)) < 10 * 2**20


def interpreter(version: str) -> str:
    """Return a Python of a version; skip where there is none."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here, which would find other Pythons")
    done = run(uv, "python", "find", "--offline", "--no-project", version, cwd=ROOT)
    if done.returncode:
        pytest.skip(f"no Python {version} on this machine")
    return done.stdout.strip()


@pytest.mark.check
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons_read_every_source(version: str, tmp_path: Path) -> None:
    """Compiled where an interpreter is found; warnings, as of an escape that will be an error, count."""
    python = interpreter(version)
    code = (
        "import sys, warnings, pathlib; warnings.simplefilter('error')\n"
        "files = [f for p in sys.argv[1:] for f in pathlib.Path(p).rglob('*.py')]\n"
        "[compile(f.read_bytes(), str(f), 'exec') for f in files]; print(len(files))"
    )
    done = run(python, "-c", code, *(ROOT / name for name in PACKAGES), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 300


@pytest.mark.check
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons_have_all_that_is_required(version: str, tmp_path: Path) -> None:
    """Every requirement and extra resolves there; skipped where no package index is reached."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here, which resolves for other Pythons")
    command = ("pip", "compile", "-q", "--all-extras", "--python-version", version, ROOT / "pyproject.toml")
    done = run(uv, *command, cwd=tmp_path)
    if done.returncode and any(word in done.stderr for word in ("connect", "fetch", "dns", "timed out")):
        pytest.skip(f"no package index is reached: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "\ntorch==" in done.stdout


@pytest.mark.check
def test_types_hold_in_the_newest_python(tmp_path: Path) -> None:
    """`make lint` checks them for the oldest; each version takes as long as the other."""
    done = run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-version", "3.13"),
        *("--cache-dir", tmp_path, *PACKAGES, "lethe.py"),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_citation_says_what_the_manifest_says() -> None:
    """The fields that the format requires, at the version of the package."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["cff-version"] == "1.2.0"
    assert found["message"]
    assert found["title"].startswith("Lethe")
    assert found["authors"]
    assert all({"name"} <= author.keys() or "family-names" in author for author in found["authors"])
    assert (found["version"], found["license"], found["type"]) == (
        project["version"],
        project["license"],
        "software",
    )
    assert {"cff-version", "message", "title", "authors", "version", "license", "type"} <= found.keys()
    allowed = {"abstract", "keywords", "date-released", "references"}
    assert (
        found.keys() <= {"cff-version", "message", "title", "authors", "version", "license", "type"} | allowed
    )
