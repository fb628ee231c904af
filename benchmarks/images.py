"""How fast and in how much memory a folder of images trains that is decoded batch by batch.

The contenders are a run of this project with ``data.lazy = true`` and one worker, and a plain torch loop over
a Dataset that decodes the same files and a DataLoader without workers, each in a process of its own.
"""

import io
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from app.workflows.observer import Observer
from benchmarks.jobs import Job, Task, contend
from benchmarks.options import BenchmarkOptions
from strategies.core.seeds import numpy_generator

CLASSES = 10
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
    batch_size: int = 32
    folder: str = ""
    """Where the images are written, in a folder that is deleted afterwards; empty: the system's own place."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Measure both contenders on the same files.

    Returns
    -------
    dict
        ``images`` and ``gigabytes`` of files; of each contender ``seconds``, ``images-per-second`` and
        ``peak-mb``, the largest resident memory of a process that trains; and ``speed``, the project's images
        per second over the plain loop's.
    """
    observer.phase("images", 3)
    with tempfile.TemporaryDirectory(dir=options.folder or None) as folder:
        images, size = write_jpegs(Path(folder), options)
        observer.advance(f"{images} images")
        steps = math.ceil(images / options.clients / options.batch_size)
        job = Job(options.clients, options.rounds, steps, options.batch_size)
        measured: dict[str, dict[str, Any]] = {}
        for name, module in (("lethe", "lazy_images"), ("plain", "plain_images")):
            found = contend(module, Task(job, folder, 1, image_size=options.size))
            speed = images * options.rounds / found["seconds"]
            measured[name] = {
                "seconds": found["seconds"],
                "images-per-second": speed,
                "peak-mb": found["peak-mb"],
            }
            observer.advance(f"{name}: {speed:.0f} images/s, {found['peak-mb']:.0f} MB")
    ratio = measured["lethe"]["images-per-second"] / measured["plain"]["images-per-second"]
    return {**options.settings(), "images": images, "written-gb": size / 1e9, **measured, "speed": ratio}


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
