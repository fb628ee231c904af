"""The command line: ``lethe``."""

from app.cli.entry import main

__all__ = ["main"]
