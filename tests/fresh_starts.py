"""Code that runs as in a new interpreter: in a fork of one that has imported torch, and nothing of ours.

Most of the seconds that a new interpreter takes are torch's, and no test of what an import costs or needs
asks about those.
"""

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_BOOT = """
import gc, json, os, sys, traceback
gc.disable()
import torch
gc.freeze()
gc.enable()
for line in sys.stdin:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(write, 1)
            os.dup2(write, 2)
            exec(json.loads(line), {"__name__": "__main__"})
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read) as stream:
        told = stream.read()
    print(json.dumps([os.waitpid(child, 0)[1], told]), flush=True)
"""


class FreshStarts:
    """Runs code in forks of one interpreter, which the first code starts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, code: str) -> str:
        """Return what the code prints, from the root of the project; an error of its is an assertion's."""
        if self._process is None:
            command = [sys.executable, "-c", _BOOT]
            self._process = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps(code), file=stdin, flush=True)
        status, told = json.loads(stdout.readline())
        assert status == 0, told
        return str(told)

    def close(self) -> None:
        """End the interpreter."""
        if self._process is not None:
            self._process.communicate()
