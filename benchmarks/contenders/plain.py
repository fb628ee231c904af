"""What a careful person would write by hand: one process, one model, one client after the other."""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.jobs import LEARNING_RATE, Stopwatch, Task, initial_model
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator


def train_client(
    model: nn.Module, examples: TensorExamples, batch_size: int, generator: torch.Generator
) -> None:
    """Train a model in place for one epoch of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    for batch in torch.split(torch.randperm(len(examples), generator=generator), batch_size):
        optimizer.zero_grad()
        functional.cross_entropy(model(examples.x[batch]), examples.y[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    clients = task.clients()
    model = initial_model(task.job)
    torch.optim.SGD(model.parameters())  # The first optimiser imports for seconds: no part of a round.
    global_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    watch.start()
    for server_round in range(1, task.job.rounds + 1):
        total = {name: torch.zeros_like(tensor) for name, tensor in global_state.items()}
        for number, examples in enumerate(clients):
            model.load_state_dict(global_state)
            generator = torch_generator(0, "client", str(number), "round", server_round)
            train_client(model, examples, task.job.batch_size, generator)
            for name, tensor in model.state_dict().items():
                total[name] += tensor / len(clients)
        global_state = total
        watch.lap()
    flat = torch.cat([tensor.flatten() for tensor in global_state.values()])
    watch.report(flat, threads=torch.get_num_threads())
