"""A small picture for each forgetting method, drawn from what `docs.toy` found by running them.

``python -m docs.pictures`` writes docs/forgetting/METHOD.svg; with ``--check`` it says which are stale.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.plane import START, Picture, Point

FOLDER = "docs/forgetting"
PATHS = f"{FOLDER}/paths.json"
_WALKS = (
    *("leave-out", "finetune", "l1-sparse", "ascent", "influence", "negate"),
    *("neggrad", "scrub", "random-labels", "bad-teacher", "salun", "ssd"),
)
"""Methods that take the trained model along a path."""
Found = Mapping[str, Any]
"""What `docs.toy` wrote down."""


def pictures(found: Found) -> Iterator[tuple[str, Picture]]:
    """Yield every picture with its name, which is that of the method but for the first."""
    yield "training", _training(found)
    yield "retrain", _retrain(found)
    yield "subtract", _subtract(found)
    yield "fast-fedul", _from_subtraction(found, "fast-fedul", found["methods"]["subtract"], through=False)
    yield "distill", _from_subtraction(found, "distill", found["methods"]["subtract"])
    yield "fast-distill", _from_subtraction(found, "fast-distill", found["cautious"])
    yield "federaser", _federaser(found)
    for name in _WALKS:
        yield name, _walk(found, name, found["methods"][name])
    yield "fisher", _fisher(found)
    pair = {"train": found["pair"]["train"], "methods": found["pair"]}
    yield "fedosd", _walk(pair, "fedosd", found["pair"]["fedosd"])
    yield "sifu", _hidden(found)
    yield "redistill", _redistill(found)
    yield "reprune", _reprune(found)


def _begun(found: Found, label: str, more: list[Point]) -> Picture:
    """Return a picture of the training, its end and the aim, with room for more."""
    aim, trained = found["methods"]["retrain"][-1], found["train"][-1]
    picture = Picture([*found["train"], aim, *more], label)
    picture.path(found["train"], "trained", arrow=False)
    above = max([trained, *more], key=lambda point: point[1])
    picture.dot(trained, "trained", 4.5)
    picture.words(picture.at((trained[0], above[1])), "trained", "trained", "above")
    picture.point(START, "pale", "start", "left")
    picture.ring(aim, "retrained", "below")
    return picture


def _training(found: Found) -> Picture:
    """Draw two trainings: with client 3, and never with it."""
    aim = found["methods"]["retrain"]
    picture = Picture(
        [*found["train"], aim[-1]], "A model is trained with client 3, and once more without it"
    )
    picture.path(found["train"], "trained", arrow=False)
    picture.path(aim, "target", arrow=False)
    picture.point(START, "pale", "start", "left")
    picture.point(found["train"][-1], "trained", "trained", "above")
    picture.ring(aim[-1], "retrained", "below")
    return picture


def _retrain(found: Found) -> Picture:
    path = found["methods"]["retrain"]
    picture = _begun(found, "retrain begins again and trains without client 3", path)
    picture.path(path, "method")
    return picture


def _subtract(found: Found) -> Picture:
    """Draw a path whose every step takes back one round's update of client 3."""
    path = [found["train"][-1], *found["taken"]]
    picture = _begun(found, "subtract takes back the updates of client 3, one after another", path)
    picture.path(path, "method")
    picture.words(picture.at(path[-1]), "method", "subtract", "left")
    return picture


def _from_subtraction(found: Found, name: str, first: list[Point], *, through: bool = True) -> Picture:
    """Draw a method as going on from a subtraction, or beside it if not `through`."""
    trained, path = found["train"][-1], found["methods"][name]
    picture = _begun(found, f"{name}, and a subtraction for comparison", [*first, *path])
    picture.path([trained, *first], "pale")
    picture.point(first[-1], "pale", "subtract", "left")
    picture.path([first[-1] if through else trained, *path], "method")
    picture.words(picture.at(path[-1]), "method", name, "above" if through else "left")
    return picture


def _federaser(found: Found) -> Picture:
    path = [START, *found["methods"]["federaser"]]
    picture = _begun(found, "federaser replays some rounds from the start, without client 3", path)
    picture.path(path, "method")
    picture.words(picture.at(path[-1]), "method", "federaser", "above")
    return picture


def _walk(found: Found, name: str, path: list[Point]) -> Picture:
    """Draw a method that takes the trained model along a path."""
    trained = found["train"][-1]
    path = path if path[0] == trained else [trained, *path]
    picture = _begun(found, f"{name}: where the trained model goes", path)
    picture.path(path, "method")
    picture.words(picture.at(path[-1]), "method", name, "right" if path[-1][0] > trained[0] else "below")
    return picture


def _fisher(found: Found) -> Picture:
    """Draw a dot for each draw of the noise."""
    picture = _begun(found, "fisher adds noise, more where it does not hurt the others", found["draws"])
    for draw in found["draws"]:
        picture.dot(draw, "method")
    lowest = min(found["draws"], key=lambda draw: draw[1])
    picture.words(picture.at(lowest), "method", "fisher, 24 draws", "below")
    return picture


def _hidden(found: Found) -> Picture:
    """Draw the way back to a round, a dot for each draw of noise there, and the way on from one of them."""
    hidden = found["hidden"]
    own, room = {"train": hidden["train"], "methods": hidden}, [*hidden["cloud"], *hidden["sifu"]]
    picture = _begun(own, "sifu goes back to a round, adds noise there and trains on", room)
    for draw in hidden["cloud"]:
        picture.dot(draw, "pale")
    picture.point(hidden["kept"], "trained", "kept", "above")
    picture.path(hidden["sifu"], "method")
    picture.words(picture.at(hidden["sifu"][-1]), "method", "sifu", "above")
    return picture


def _redistill(found: Found) -> Picture:
    answers, (of_all, of_rest) = found["answers"], found["consensus"]
    words = ("answer to one public example", "answer to another")
    picture = Picture(answers.values(), "redistill leaves client 3 out of the consensus", *words)
    for client, answer in answers.items():
        picture.point(answer, "trained" if client == "3" else "pale", f"client {client}", "right")
    picture.path([of_all, of_rest], "method")
    picture.point(of_all, "trained", "consensus", "below")
    picture.ring(of_rest, "without client 3", "above")
    return picture


def _reprune(found: Found) -> Picture:
    """Draw two masks of one weight: what client 3 made large, and what the others need."""
    kept, anew = found["methods"]["retrain pruned"], found["methods"]["reprune pruned"]
    half = len(anew) // 2
    picture = Picture([*kept, *anew], "reprune chooses another weight to keep")
    picture.path(kept[:half], "trained")
    picture.path(anew[half:], "method")
    picture.point(START, "pale", "start", "below")
    picture.words(picture.at(kept[half - 1]), "trained", "the mask that client 3 chose", "right")
    picture.words(picture.at(anew[-1]), "method", "the mask of reprune", "above")
    return picture


def main(arguments: list[str]) -> int:
    """Draw all pictures, or with ``--check`` name what is stale; return 1 if something is."""
    found = json.loads(Path(PATHS).read_text(encoding="utf-8"))
    drawn = {Path(FOLDER) / f"{name}.svg": picture.svg() for name, picture in pictures(found)}
    stale = [p for p, svg in drawn.items() if not p.exists() or p.read_text(encoding="utf-8") != svg]
    for path in stale:
        if "--check" in arguments:
            sys.stderr.write(f"{path}: stale; run make generate\n")
        else:
            path.write_text(drawn[path], encoding="utf-8")
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
