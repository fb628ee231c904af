"""Every module can be the first of the project that a process imports: no circle depends on the order."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EACH_IN_A_CHILD = """
import importlib, os, sys, traceback
import torch, torch.optim, flwr.app, flwr.clientapp, flwr.serverapp, opacus, numpy, pydantic, typer
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(failed)
"""


@pytest.mark.check
def test_every_module_can_be_imported_first() -> None:
    files = [path for part in ("app", "strategies", "unlearning") for path in (ROOT / part).rglob("*.py")]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in files]
    names = {".".join(each).removesuffix(".__init__") for each in parts}
    assert len(names) > 300
    command = [sys.executable, "-W", "ignore", "-c", EACH_IN_A_CHILD, *sorted(names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
