"""What Flower's documentation teaches: its own FedAvg and a plain ClientApp, in its own simulation on Ray."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.contenders.lethe_on_ray import backend_config
from benchmarks.contenders.plain import train_client
from benchmarks.jobs import Stopwatch, Task, client_examples, initial_model
from strategies.core.seeds import torch_generator


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    client_app, server_app = ClientApp(), ServerApp()

    @client_app.query()
    def ready(message: Message, context: Context) -> Message:
        client_examples(task)
        torch.optim.SGD(initial_model(task.job).parameters())
        return Message(RecordDict(), reply_to=message)

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        examples = client_examples(task)[number]
        model = initial_model(task.job)
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        server_round = int(str(message.content.config_records["config"]["server-round"]))
        generator = torch_generator(0, "client", str(number), "round", server_round)
        train_client(model, examples, task.job.batch_size, generator)
        metrics = MetricRecord({"num-examples": len(examples)})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        # The actors import for seconds: no part of a round.
        grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])

        def lap(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            if server_round:
                watch.lap()
            else:
                watch.start()
            return MetricRecord()

        strategy = FedAvg(fraction_evaluate=0.0)
        arrays = ArrayRecord(initial_model(task.job).state_dict())
        result = strategy.start(grid, arrays, num_rounds=task.job.rounds, evaluate_fn=lap)
        state = result.arrays.to_torch_state_dict()
        watch.report(torch.cat([tensor.flatten() for tensor in state.values()]), workers=task.workers)

    run_simulation(server_app, client_app, task.job.clients, backend_config=backend_config(task))
