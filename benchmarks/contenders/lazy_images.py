"""The project itself on a folder of images that it decodes batch by batch, with one worker."""

import json
import resource
import sys
import tempfile

from app.config.run_config import RunConfig
from app.workflows import train
from benchmarks.jobs import LEARNING_RATE, Stopwatch, Task


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task; CPU seconds, imports included, and the peak are those of the worker."""
    with tempfile.TemporaryDirectory() as home:
        config = RunConfig().with_overrides(
            [
                f"data.name=folder:{task.data}",
                "data.lazy=true",
                f"data.size={task.image_size}",
                "data.public=0",
                "data.test-share=0",
                f"data.clients={task.job.clients}",
                "model.name=cnn",
                f"train.learning-rate={LEARNING_RATE}",
                "train.momentum=0",
                f"train.batch-size={task.job.batch_size}",
                "train.local-epochs=1",
                f"run.rounds={task.job.rounds}",
                "run.workers=1",
                f"run.home={home}",
                "log.enabled=false",
            ]
        )
        seconds = train(config).read_summary()["seconds"]
    worker = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = {"seconds": seconds, "cpu-seconds": worker.ru_utime + worker.ru_stime}
    sys.stdout.write(json.dumps({**used, "peak-mb": worker.ru_maxrss * 1024 / 1e6}) + "\n")
