"""The whole examples run, at a small size, and print what their page promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PRINTED = {
    "breast_cancer": ("mean AUROC", "four hospitals", "fast-distill", "federaser", "second retraining"),
    "houses": ("test-r2", "finetune", "subtract", "federaser", "second retraining"),
    "shapes": ("test-iou", "finetune", "subtract", "federaser", "second retraining"),
    "batch_norm": ("recalibrate", "group", "local", "finetune"),
}


def test_every_example_is_run() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"forgetting"}
    assert scripts == set(PRINTED)
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.py)" in page for name in scripts)


@pytest.mark.check
@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(EXAMPLES.parents[1]), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--small", "--home", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert [word for word in PRINTED[name] if word not in ended.stdout] == []
