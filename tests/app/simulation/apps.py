"""A ClientApp whose clients do one odd thing each, for the tests of the local simulation."""

import gc
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies.core import wire
from strategies.core.errors import BadInput

app = ClientApp()
prepared: list[str] = []
_seen_by_this_process: list[int] = []


def prepare(run_config: dict[str, object]) -> None:
    prepared.append(str(run_config.get("name", "")))


def refuse_config(run_config: dict[str, object]) -> None:
    raise BadInput("data.clients: 5000 clients cannot share 10 examples")


def prepare_for_long(run_config: dict[str, object]) -> None:
    time.sleep(600)


def _changed(message: Message, change: Callable[[torch.Tensor], torch.Tensor]) -> ArrayRecord:
    return wire.record_of(
        {n: change(t) for n, t in wire.state_of(message.content.array_records["arrays"]).items()}
    )


def _reply(message: Message, context: Context, arrays: ArrayRecord, **metrics: float) -> Message:
    numbers = MetricRecord({"num-examples": 1 + int(context.node_config["partition-id"]), **metrics})
    return Message(RecordDict({"arrays": arrays, "metrics": numbers}), reply_to=message)


@app.train()
def add_own_id(message: Message, context: Context) -> Message:
    return _reply(
        message, context, _changed(message, lambda t: t + float(context.node_config["partition-id"]))
    )


@app.train("echo")
def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@app.train("overwrite")
def overwrite(message: Message, context: Context) -> Message:
    """Add one to the received model in place, as a careless client would."""
    record = message.content.array_records["arrays"]
    state = wire.state_of(record)
    for tensor in state.values():
        tensor += 1
    return _reply(message, context, wire.record_of(state))


@app.train("seeded")
def seeded(message: Message, context: Context) -> Message:
    generator = torch.Generator().manual_seed(int(context.node_config["partition-id"]))
    return _reply(
        message, context, _changed(message, lambda t: t + torch.randn(t.shape, generator=generator))
    )


@app.train("mixed")
def mixed(message: Message, context: Context) -> Message:
    """Answer with arrays of several kinds, and more than one record of them."""
    whole = {"counts": Array(np.arange(3)), "half": Array(np.ones((2, 2), dtype=np.float16))}
    plain = ArrayRecord({"w": Array(np.full((2, 3), 7.0, dtype=np.float32))})
    content = RecordDict({"whole": ArrayRecord(whole), "empty": ArrayRecord(), "plain": plain})
    content["config"] = ConfigRecord({"name": "mixed", "flag": True, "list": [1, 2]})
    return Message(content, reply_to=message)


@app.train("malformed")
def malformed(message: Message, context: Context) -> Message:
    lies = Array(dtype="float32", shape=(5,), stype="numpy.ndarray", data=b"no array")
    return _reply(message, context, ArrayRecord({"w": lies}))


@app.train("large")
def large(message: Message, context: Context) -> Message:
    size = int(message.content.config_records["config"]["size"])
    return _reply(message, context, wire.record_of({"w": torch.full((size,), 1.0)}))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)


@app.query("count")
def count(message: Message, context: Context) -> Message:
    """Count the visits to this client in its own state."""
    visits = int(context.state["visits"]["n"]) + 1 if "visits" in context.state else 1
    context.state["visits"] = MetricRecord({"n": visits})
    return Message(RecordDict({"metrics": MetricRecord({"visits": visits})}), reply_to=message)


@app.query("forget")
def forget(message: Message, context: Context) -> Message:
    context.state = RecordDict()
    return Message(RecordDict(), reply_to=message)


@app.query("keep")
def keep(message: Message, context: Context) -> Message:
    """Put a model into the client's state; answer with the sum of the one that was there."""
    kept = context.state.array_records.get("model")
    total = 0.0 if kept is None else float(sum(t.sum() for t in wire.state_of(kept).values()))
    context.state["model"] = message.content["arrays"]
    return Message(RecordDict({"metrics": MetricRecord({"total": total})}), reply_to=message)


@app.query("context")
def show_context(message: Message, context: Context) -> Message:
    """Answer with what the client was told about itself; change it, which must not last."""
    config = ConfigRecord({"node-id": context.node_id, **context.node_config, **context.run_config})
    config["prepared"] = list(prepared)
    config["process"] = os.getpid()
    config["threads"] = torch.get_num_threads()
    config["collects"] = gc.isenabled()
    config["frozen"] = gc.get_freeze_count()
    context.node_config["partition-id"] = -1
    context.run_config["name"] = "changed"
    return Message(RecordDict({"config": config}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    context.state["visits"] = MetricRecord({"n": 99})
    raise ValueError("boom")


@app.query("wrong")
def wrong(message: Message, context: Context) -> Message:
    return "not a message"  # type: ignore[return-value]


@app.query("refuse")
def refuse(message: Message, context: Context) -> Message:
    return Message(Error(code=6, reason="no budget left"), reply_to=message)


@app.query("quit")
def quit_python(message: Message, context: Context) -> Message:
    raise SystemExit("enough")


@app.query("exit")
def exit_process(message: Message, context: Context) -> Message:
    os._exit(3)


@app.query("killed")
def killed(message: Message, context: Context) -> Message:
    """Kill the worker that serves client 0; serve the others."""
    if context.node_config["partition-id"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return Message(RecordDict({"metrics": MetricRecord({"process": os.getpid()})}), reply_to=message)


@app.query("sleep")
def sleep(message: Message, context: Context) -> Message:
    """Sleep as long as the message says, or only at client 0 if it does not."""
    config = message.content.config_records.get("config", {})
    time.sleep(float(config.get("seconds", 0 if context.node_config["partition-id"] else 600)))
    return Message(RecordDict(), reply_to=message)


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Say who it is."""
    return wire.reply_to(message, f"c{context.node_config['partition-id']}", {wire.NUM_EXAMPLES: 1})


@app.query("nap")
def nap(message: Message, context: Context) -> Message:
    """Sleep a second, or for long at client 0 if the message says so; then say who it is."""
    hangs = message.content.config_records["config"]["hangs"] and not context.node_config["partition-id"]
    time.sleep(600 if hangs else 1.0)
    return wire.reply_to(message, f"c{context.node_config['partition-id']}", {})


@app.query("print")
def print_something(message: Message, context: Context) -> Message:
    print("printed by a client")  # noqa: T201
    return Message(RecordDict(), reply_to=message)


@app.train("count")
def count_in_training(message: Message, context: Context) -> Message:
    """Count the visits to this client in its own state; client 1 fails."""
    if context.node_config["partition-id"] == 1:
        raise ValueError("boom")
    return count(message, context)


@app.train("killed")
def killed_in_training(message: Message, context: Context) -> Message:
    return killed(message, context)


@app.train("nap")
def nap_in_training(message: Message, context: Context) -> Message:
    """Take three tenths of a second; client 0 hangs."""
    time.sleep(0.3 if context.node_config["partition-id"] else 600)
    config = ConfigRecord({"client-id": f"c{context.node_config['partition-id']}"})
    return Message(RecordDict({"config": config}), reply_to=message)
