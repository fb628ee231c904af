"""What a careful person would write by hand: a Dataset that decodes a file, a DataLoader, a loop."""

import resource
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from benchmarks.images import CLASSES
from benchmarks.jobs import LEARNING_RATE, Stopwatch, Task
from strategies.core.seeds import torch_generator

_WHITE = 255


class Pictures(Dataset[tuple[Tensor, int]]):
    """JPEGs in folders of classes, scaled to squares."""

    def __init__(self, folder: Path, size: int) -> None:
        self._files = sorted(folder.rglob("*.jpg"))
        self._size = size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """Decode and scale an image."""
        file = self._files[position]
        with Image.open(file) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float().div_(_WHITE)
        side = (self._size, self._size)
        scaled = functional.interpolate(pixels[None], side, mode="bilinear", antialias=True)[0]
        return scaled, int(file.parent.name)


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task: as many passes over the images as the job has rounds."""
    pictures = Pictures(Path(task.data), task.image_size)
    model = build_model(ModelSettings(), (3, task.image_size, task.image_size), CLASSES, 0)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    loader = DataLoader(pictures, task.job.batch_size, shuffle=True, generator=torch_generator(0, "shuffle"))
    watch.start()
    for _ in range(task.job.rounds):
        for inputs, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        watch.lap()
    own = resource.getrusage(resource.RUSAGE_SELF)
    watch.report(torch.zeros(1), **{"cpu-seconds": own.ru_utime + own.ru_stime})
