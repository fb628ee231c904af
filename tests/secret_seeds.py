"""Finds secret numbers that seed a generator: whatever their length, the generator keeps less of it."""

import ast

SOURCES = {"secrets", "urandom", "SystemRandom"}
"""What a secret number comes from: a module, or the name of a function or class."""
SEEDED = {
    *("manual_seed", "seed", "default_rng", "RandomState", "SeedSequence", "PCG64", "MT19937", "Philox"),
    *("Random", "torch_generator", "numpy_generator", "derive_seed", "seeded"),
}
"""What takes a seed."""


def secret_seeds(code: str) -> list[int]:
    """Return the lines of calls that seed a generator with what came from a source of secret numbers.

    Names are followed within their function, or module: whatever is made of a secret is one.
    """
    tree = ast.parse(code)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted({line for scope in (tree, *functions) for line in _lines(scope)})


def _lines(scope: ast.AST) -> list[int]:
    tainted: set[str] = set()
    while found := {name for node in ast.walk(scope) for name in _made(node, tainted)} - tainted:
        tainted |= found
    calls = [node for node in ast.walk(scope) if isinstance(node, ast.Call) and _name(node.func) in SEEDED]
    return [
        call.lineno
        for call in calls
        if any(_is_secret(given, tainted) for given in (*call.args, *(k.value for k in call.keywords)))
    ]


def _made(node: ast.AST, tainted: set[str]) -> set[str]:
    """Return the names that a statement gives to something secret."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        targets = [node.target]
    value = getattr(node, "value", None)
    if not targets or value is None or not _is_secret(value, tainted):
        return set()
    return {name for target in targets for part in ast.walk(target) if (name := _name(part))}


def _is_secret(value: ast.AST, tainted: set[str]) -> bool:
    return any(_name(part) in SOURCES | tainted for part in ast.walk(value))


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
