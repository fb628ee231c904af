"""The house as the sources have it: its rooms, and which imports which.

``python -m docs.house`` draws docs/house.svg; with ``--check`` it says what is wrong or stale. The imports
are read from the sources, the rooms and their floors from docs/house.txt.
"""

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from docs.drawing import WINGS, Door, Room, furnished, picture

PICTURE, PLAN = "docs/house.svg", "docs/house.txt"
_TYPES_ALONE = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def sources(root: Path) -> dict[str, Path]:
    """Return the file of every module."""
    files = [*root.glob("*.py"), *(path for wing in WINGS for path in (root / wing).rglob("*.py"))]
    names = (".".join(path.relative_to(root).with_suffix("").parts) for path in files)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


def imported(root: Path, path: Path, known: dict[str, Path]) -> set[str]:
    """Return the project's modules that a file imports anywhere in it, but for types alone."""
    found, package = set(), path.relative_to(root).parts[:-1]
    for node in _running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            each = (f"{base}.{alias.name}" for alias in node.names)
            found |= {name if name in known else base for name in each}
    return found & known.keys()


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a node and runs."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) in _TYPES_ALONE):
            yield child
            yield from _running(child)


def rooms(root: Path, known: dict[str, Path]) -> list[Room]:
    """Return the rooms of the plan that exist, floor by floor and from left to right."""
    registry = (root / "strategies" / "registry.py").read_text(encoding="utf-8")
    algorithms = " ".join(sorted(set(re.findall(r'"strategies\.(\w+)', registry))))
    text = re.sub(r"#.*\n", "", (root / PLAN).read_text(encoding="utf-8")).replace("*", algorithms)
    found: list[Room] = []
    for floor, lines in enumerate(text.strip().split("\n\n")):
        written = []
        for line in lines.splitlines():
            wing, names, what = _read(line)
            shown, hidden = (_existing(wing, part, known) for part in f"{names} + ".split(" + ")[:2])
            title = " ".join([*shown, *(["…"] if hidden else [])])
            written += [(wing, title, what, (*shown.values(), *hidden.values()))] if shown else []
        found += furnished(floor, written)
    return found


def _read(line: str) -> tuple[str, str, str]:
    match = re.fullmatch(rf"({'|'.join(WINGS)}): (.+) \| (.+)", line)
    if match is None:
        sys.exit(
            f"{PLAN}: given '{line}', allowed 'WING: NAMES | WHAT' with one of the wings {', '.join(WINGS)}"
        )
    return match[1], match[2], match[3]


def _existing(wing: str, names: str, known: dict[str, Path]) -> dict[str, str]:
    """Return the modules that exist of those that a line of the plan names, by their names there."""
    paths = {name: name.removesuffix("/").removesuffix(".py").replace("/", ".") for name in names.split()}
    return {n: part for n, path in paths.items() for part in (f"{wing}.{path}", path) if part in known}


def doors(root: Path, known: dict[str, Path], plan: list[Room]) -> tuple[dict[Door, int], list[str]]:
    """Return which room imports which, and a line for each thing that is wrong with the house."""
    homes = {part: room for room in plan for part in room.parts}
    counted: Counter[tuple[Room, Room]] = Counter()
    homeless = {name for name in known.keys() - WINGS if not _home(name, homes)}
    outermost = sorted(name for name in homeless if name.rpartition(".")[0] not in homeless)
    wrong = [f"{name}: in no room of {PLAN}" for name in outermost]
    for name, path in sorted(known.items()):
        for other in sorted(imported(root, path, known)):
            here, there = _home(name, homes), _home(other, homes)
            if here and there and here != there:
                counted[here, there] += 1
                if there.floor <= here.floor:
                    wrong.append(f"{name} imports {other}, which is on no lower floor in {PLAN}")
    return counted, wrong


def _home(module: str, homes: dict[str, Room]) -> Room | None:
    """Return the room of a module: its own, or that of the nearest package around it."""
    while module not in homes and "." in module:
        module = module.rpartition(".")[0]
    return homes.get(module)


def kept(counted: dict[Door, int]) -> dict[Door, int]:
    """Return the doors but those that a longer way down makes up for; a way up is always kept."""
    below: dict[Room, set[Room]] = defaultdict(set)
    down = sorted((door for door in counted if door[0].floor < door[1].floor), key=lambda d: -d[0].floor)
    for a, b in down:
        below[a] |= {b} | below[b]
    spared = {(a, c) for a, b in down for c in below[b]}
    return {door: n for door, n in counted.items() if door not in spared}


def main(arguments: list[str]) -> int:
    """Draw the house, or with ``--check`` name what is stale; return 1 if that or anything is wrong."""
    root = Path.cwd()
    known = sources(root)
    plan = rooms(root, known)
    counted, wrong = doors(root, known, plan)
    wrong += [f"{PLAN}: the floor of {room.title} is too wide" for room in plan if room.left < 0]
    drawing, path = picture(plan, kept(counted)), root / PICTURE
    if "--check" not in arguments:
        path.write_text(drawing, encoding="utf-8")
    elif not wrong and (not path.exists() or path.read_text(encoding="utf-8") != drawing):
        wrong = [f"{PICTURE}: stale; run make generate"]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
