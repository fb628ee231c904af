"""Run a contender, ``python -m benchmarks.contenders <module>``, with its task on standard input."""

import sys
from importlib import import_module

from benchmarks.jobs import Stopwatch, Task

if __name__ == "__main__":
    contender = import_module(f"benchmarks.contenders.{sys.argv[1]}")
    watch = Stopwatch()
    contender.main(Task.read(), watch)
