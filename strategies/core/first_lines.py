"""What a module is for, as the first line of its docstring says, without importing it."""

import ast
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def first_line(module: str) -> str:
    """Return the first line of a module's docstring; the module is read, not run, so this costs little.

    >>> first_line("strategies.core.first_lines")
    'What a module is for, as the first line of its docstring says, without importing it'
    """
    source = _ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    line = text.partition("\n")[0].partition("; see ")[0]
    return line.replace("`", "").rstrip(".")
