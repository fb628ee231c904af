"""How fast and in how much memory a folder of images trains that is decoded batch by batch.

The contenders are a run of this project with ``data.lazy = true`` and one worker, and a plain torch loop over
a Dataset that decodes the same files and a DataLoader without workers, each in a process of its own.
"""

import io
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.workflows.observer import Observer
from benchmarks.jobs import Job, Task, contend
from benchmarks.options import BenchmarkOptions
from strategies.core.seeds import numpy_generator

CLASSES = 10
_CONTENDERS = {"lethe": "lazy_images", "plain": "plain_images"}
_DIFFERENT = 64
"""Pictures that are drawn; each is written under many names, with a number of its own."""


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    gigabytes: float = 0.02
    """Size of all JPEGs together."""
    side: int = 256
    """Of an image in its file, in pixels."""
    size: int = 64
    """``data.size``: side that images are scaled to."""
    clients: int = 4
    rounds: int = 1
    """Each with one pass over all images."""
    repeats: int = 1
    """Runs of each contender, in turns; the median is reported."""
    batch_size: int = 32
    folder: str = ""
    """Where the images are written, in a folder that is deleted afterwards; empty: the system's own place."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure both contenders on the same files.

    Returns
    -------
    dict
        ``images`` and ``written-gb`` of files; of each contender ``seconds`` and ``cpu-seconds`` of training,
        ``images-per-second`` and ``peak-mb``, the largest resident memory of a process that trains; and
        ``speed``, the plain loop's seconds over the project's.
    """
    observer.phase("images", 1 + len(_CONTENDERS) * options.repeats)
    with tempfile.TemporaryDirectory(dir=options.folder or None) as folder:
        images, size = write_jpegs(Path(folder), options)
        observer.advance(f"{images} images")
        steps = math.ceil(images / options.clients / options.batch_size)
        job = Job(options.clients, options.rounds, steps, options.batch_size)
        task = Task(job, folder, 1, image_size=options.size)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in _CONTENDERS}
        for _ in range(options.repeats):
            for name, module in _CONTENDERS.items():
                runs[name].append(contend(module, task))
                observer.advance(f"{name}: {runs[name][-1]['seconds']:.1f} s")
    measured = {name: _summary(found, images * options.rounds) for name, found in runs.items()}
    ratio = {key: measured["plain"][key] / measured["lethe"][key] for key in ("seconds", "cpu-seconds")}
    return {**options.settings(), "images": images, "written-gb": size / 1e9, **measured, "speed": ratio}


def _summary(runs: Sequence[Mapping[str, float]], images: int) -> dict[str, float]:
    """Return medians over runs, and the largest memory."""
    seconds, cpu = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu-seconds"))
    return {
        "seconds": seconds,
        "cpu-seconds": cpu,
        "images-per-second": images / seconds,
        "peak-mb": max(run["peak-mb"] for run in runs),
    }


def write_jpegs(folder: Path, options: Options) -> tuple[int, int]:
    """Write JPEGs of noise in folders of classes until they have a size; return how many, and bytes."""
    pictures = [_jpeg(number, options.side) for number in range(_DIFFERENT)]
    count = size = 0
    while size < options.gigabytes * 1e9 or count < CLASSES:
        place = folder / str(count % CLASSES)
        place.mkdir(exist_ok=True)
        content = pictures[count % _DIFFERENT] + f"{count}".encode()  # What follows the end is not decoded
        (place / f"{count}.jpg").write_bytes(content)
        count, size = count + 1, size + len(content)
    return count, size


def _jpeg(number: int, side: int) -> bytes:
    from PIL import Image

    coarse = numpy_generator(number, "jpeg").integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    fine = numpy_generator(number, "grain").normal(0, 12, (side, side, 3))
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    stream = io.BytesIO()
    Image.fromarray(np.clip(smooth + fine, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
