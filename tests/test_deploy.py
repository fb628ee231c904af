"""deploy/: what systemd and compose start is what docs/deploy.md says, word for word."""

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMMANDS = ("flower-superlink", "flower-supernode", "lethe executor")


def documented() -> dict[str, list[str]]:
    """Return the words of each command in the docs, by the command."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [re.sub(r"^(\w+=\S+ +)+|&$", "", line.strip()) for line in blocks.splitlines()]
    return {name: shlex.split(line) for name in COMMANDS for line in lines if line.startswith(name)}


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8").replace("\\\n", " "))
    return parser


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    return found["services"]  # type: ignore[no-any-return]


def test_the_docs_start_all_three() -> None:
    assert set(documented()) == set(COMMANDS)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_what_the_docs_start(path: Path) -> None:
    words = shlex.split(unit(path)["Service"]["ExecStart"])
    words[0] = words[0].removeprefix("/opt/lethe/.venv/bin/")
    assert words in documented().values()
    assert unit(path)["Service"]["UMask"] == "0077"
    assert unit(path)["Service"]["Restart"] == "always"


def test_there_is_a_unit_and_a_service_for_each() -> None:
    assert [path.stem for path in UNITS] == ["lethe-executor", "lethe-superlink", "lethe-supernode"]
    commands = [shlex.split(service["command"]) for service in services().values()]
    assert commands == [
        documented()[name] for name in ("flower-superlink", "flower-supernode", "lethe executor")
    ]


def test_only_the_superlink_gets_the_server_s_key() -> None:
    """A client's container sees its own key and the public certificate, and the executor none of them."""
    mounts = {name: " ".join(service["volumes"]) for name, service in services().items()}
    assert "keys" not in mounts["executor"]
    assert "server" not in mounts["supernode"]
    assert "./srv:/srv" not in mounts["supernode"]
