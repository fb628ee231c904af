"""Makes sure that Lethe's packages are Lethe's, whose names may be those of a user's files as well.

``app``, ``strategies`` and ``unlearning`` lie beside each other, wherever they are installed. What is found
elsewhere by one of these names is somebody else's, and hides Lethe's: ``app.py`` in the folder in which
Python was started, for one.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

NAMES = ("app", "strategies", "unlearning")
_HERE = Path(__file__).resolve().parents[2]


class HiddenPackage(ImportError):
    """Another module has the name of one of Lethe's packages, and is found before it."""


def hidden_in(folder: Path) -> str | None:
    """Return the line that says what in a folder would hide Lethe's; None if nothing would.

    >>> hidden_in(_HERE) is None
    True
    """
    if folder.resolve() == _HERE:
        return None
    places = [place for name in NAMES for place in (folder / f"{name}.py", folder / name / "__init__.py")]
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else _line(found)


def check_ours() -> None:
    """Refuse to go on if one of Lethe's packages is hidden.

    Raises
    ------
    HiddenPackage
        In one line that names the file.
    """
    for name in NAMES:
        found = _origin(name)
        if found is not None and found.parent != _HERE / name:
            raise HiddenPackage(_line(found))


def command() -> None:
    """Run the command ``lethe``, which no package but ``strategies`` may be hidden from to say so."""
    try:
        check_ours()
    except HiddenPackage as error:
        sys.stderr.write(f"lethe: {error}\n")
        sys.exit(2)
    import_module("app.cli").main()


def _origin(name: str) -> Path | None:
    """Return the file of a package that is imported, or would be; None where it cannot be told."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
    else:
        spec = find_spec(name)
        file = None if spec is None else spec.origin
    return None if file is None else Path(file).resolve()


def _line(file: Path) -> str:
    own = file.parent.name if file.name == "__init__.py" else file.stem
    return (
        f"{file} hides Lethe's package of the same name, {own!r}; rename it, or start in another folder and "
        "take its folder out of PYTHONPATH"
    )
