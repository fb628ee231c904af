"""Flower's and Lethe's programs as they are, but noting when each message comes and goes.

A copy of this file under a program's name lies ahead of that program on the PATH of a measured federation.
It imports nothing of this project, as a ClientApp would otherwise find it imported already. One machine has
one clock, so that notes of different processes can be compared.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

STAMPS = "BENCHMARK_STAMPS"
"""Name of the variable with the file that notes are appended to."""
PROGRAMS = {
    "flower-supernode": "flwr.supernode.cli:flower_supernode",
    "flwr-clientapp": "flwr.supernode.cli:flwr_clientapp",
    "flwr-serverapp": "flwr.superlink.cli:flwr_serverapp",
    "lethe": "app.cli:main",
}
EVENTS = (
    *("push", "pushed"),
    *("receiving", "received"),
    *("created", "asked", "given", "load", "loaded", "worked", "handed"),
    *("sending", "sent"),
    "fetched",
)
"""On a message's way, in this order: the ServerApp pushes it; the SuperNode receives it; a process is created
for it, asks for it, is given it, loads the app, has worked and has handed the reply over; the SuperNode sends
that; the ServerApp has fetched it."""
_LOGGED = {
    "Receiving: %s message (ID: %s)": "receiving",
    "Received successfully": "received",
    "Sending: %s message (ID: %s)": "sending",
    "Sent successfully": "sent",
}


def stamp(event: str, message: str, at: float, kind: str = "") -> None:
    """Append a note; lines this short are appended whole, whoever else writes."""
    line = json.dumps({"event": event, "message": message, "at": at, "kind": kind}) + "\n"
    file = os.open(os.environ[STAMPS], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class SuperNodeLog(logging.Handler):
    """Takes a SuperNode's notes from its log; it works on one message at a time."""

    _message = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line that tells of a message."""
        event = _LOGGED.get(str(record.msg))
        if event is None:
            return
        if event == "receiving" and isinstance(record.args, tuple):
            self._message = str(record.args[1])
        stamp(event, self._message, record.created)


def watch_server_app() -> None:
    """Note what the ServerApp pushes and pulls."""
    grid = import_module("flwr.superlink.grid").HttpGrid
    push, pull = grid.push_messages, grid.pull_messages

    def push_messages(self: Any, messages: Iterable[Any]) -> Any:
        sent, began = list(messages), time.time()
        ids = push(self, sent)
        for message, message_id in zip(sent, ids, strict=True):
            stamp("push", message_id, began, message.metadata.message_type)
            stamp("pushed", message_id, time.time())
        return ids

    def pull_messages(self: Any, message_ids: Iterable[str]) -> Any:
        found = pull(self, message_ids)
        for message in found:
            stamp("fetched", message.metadata.reply_to_message_id, time.time())
        return found

    grid.push_messages, grid.pull_messages = push_messages, pull_messages


def watch_client_app() -> None:
    """Note what a ClientApp's process does from its start to the end of its answer."""
    module: Any = import_module("flwr.supernode.runtime.run_clientapp")
    pull, loader, push = module.pull_task_input, module.get_load_client_app_fn, module.push_message
    handled: list[str] = []

    def note(event: str) -> None:
        stamp(event, handled[-1], time.time())

    def pull_task_input(client: Any) -> Any:
        asked = time.time()
        task = pull(client)
        handled.append(task[0].metadata.message_id)
        stamp("created", handled[-1], created())
        stamp("asked", handled[-1], asked)
        note("given")
        return task

    def get_load_client_app_fn(**options: Any) -> Callable[..., Any]:
        load = loader(**options)

        def noted(*names: str) -> Any:
            note("load")
            app = load(*names)
            note("loaded")
            return app

        return noted

    def push_message(client: Any, message: Any, context: Any) -> None:
        note("worked")
        push(client, message, context)
        note("handed")

    module.pull_task_input, module.push_message = pull_task_input, push_message
    module.get_load_client_app_fn = get_load_client_app_fn


def created() -> float:
    """Return when this process was started or forked, to a hundredth of a second (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def main() -> None:
    """Be the program whose name this file has."""
    name = Path(sys.argv[0]).name
    module, _, function = PROGRAMS[name].partition(":")
    if name == "flower-supernode":
        logging.getLogger("flwr").addHandler(SuperNodeLog())
    elif name == "flwr-serverapp":
        watch_server_app()
    else:
        watch_client_app()
    sys.exit(getattr(import_module(module), function)())


if __name__ == "__main__":
    main()
