"""Flower's FedAvg, unchanged, and a ClientApp that takes one step of SGD on a small model."""

import json
import time
from itertools import pairwise
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


def _model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))


@client.train()
def train(message: Message, context: Context) -> Message:
    """Take one step."""
    model = _model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.ones(8, 64)).square().mean().backward()
    optimizer.step()
    metrics = MetricRecord({"num-examples": 8})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write down when each round ended."""
    ends: list[float] = []

    def note(server_round: int, arrays: ArrayRecord) -> None:
        ends.append(time.monotonic())

    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)
    rounds = int(str(context.run_config["rounds"]))
    strategy.start(
        grid,
        ArrayRecord(_model().state_dict()),
        num_rounds=rounds,
        train_config=ConfigRecord(),
        evaluate_fn=note,
    )
    seconds = [after - before for before, after in pairwise(ends)]
    Path(str(context.run_config["times"])).write_text(json.dumps(seconds))
