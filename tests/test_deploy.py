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
    """Return the words of each command in the ten steps of the docs, by the command."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").partition("\n## ")[0]
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
    commands = {name: shlex.split(service["command"]) for name, service in services().items()}
    assert commands == {
        "superlink": documented()["flower-superlink"],
        "client": ["sleep", "infinity"],
        "supernode": documented()["flower-supernode"],
        "executor": documented()["lethe executor"],
    }


def test_a_container_that_starts_again_finds_the_network_that_it_left() -> None:
    """A SuperNode starts again until it is registered; a network of its own would then be another."""
    used = {name: service.get("network_mode") for name, service in services().items()}
    assert used == {
        "superlink": None,
        "client": None,
        "supernode": "service:client",
        "executor": "service:client",
    }


def mounts() -> dict[str, dict[str, str]]:
    """Return what each container sees of the host: place on the host -> place inside."""
    found = {}
    for name, service in services().items():
        parts = [volume.removesuffix(":ro").split(":") for volume in service.get("volumes", ())]
        found[name] = {host.removeprefix("./"): inside for host, inside in parts}
    return found


def test_no_container_sees_a_key_that_is_not_its_own() -> None:
    keys = {name: {host for host in seen if host.startswith("srv")} for name, seen in mounts().items()}
    public = "srv/keys/ca.pem"
    assert keys["superlink"] == {public, "srv/keys/server.pem", "srv/keys/server.key"}
    assert keys["supernode"] == {public, "srv/keys/clients/hospital-a"}
    assert keys["executor"] == keys["client"] == set()


def test_what_the_superlink_keeps_outlives_its_container() -> None:
    """Its home, with the key that signs certificates, lies in the folder that the host has."""
    home = services()["superlink"]["environment"]["HOME"]
    assert mounts()["superlink"]["superlink"] == home == services()["superlink"]["working_dir"]


def test_the_executor_alone_sees_data_and_state() -> None:
    """They lie where the node's config says, and no other container shares a folder with it."""
    seen = mounts()
    words = documented()["flower-supernode"]
    config = dict(
        pair.split("=") for pair in words[words.index("--node-config") + 1].replace('"', "").split()
    )
    assert seen["executor"] == {"data": str(Path(config["data.path"]).parent), "state": config["state"]}
    for other in set(seen) - {"executor"}:
        shared = {part for host in seen[other] for part in Path(host).parts[:1]} & set(seen["executor"])
        assert not shared
