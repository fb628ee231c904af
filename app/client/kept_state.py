"""A deployed client's state on its own disk, where it survives a restart of the client's node.

A SuperNode holds a client's state in memory, for one run of Flower's. A node started with
``state="<folder>"`` in its config also writes it to disk after each message, one file per training run, and
reads it back when Flower has none: after a restart, and when a later run of Flower's resumes the training,
forgets or audits. The state is the privacy account, the client's own model, the residual of
compression and, while it attacks its own examples, how well the models shown to it know them.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from app.data import client_id_of
from app.messages import codec
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.layers.privacy.ledger import plain_name
from strategies.runs.tensor_file import read_sealed, write_sealed

KEY = "state"
"""In the node's config: an existing folder that the client's user alone may write."""
_RUN_ID = re.compile(r"[0-9a-f]{1,64}")
_CONTENT = "state"
_OWNER_ALONE = 0o600
MOST_BYTES = 2**31 - 2**20
"""Of a state: Flower carries it in one gRPC message, of less than 2 GiB; models travel in pieces."""


def keep_state(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Restore the state before a message is handled, and write it to disk before the answer is sent; a mod.

    Raises
    ------
    BadInput
        If the node's folder does not exist, or the server's name for the run is malformed.
    LetheError
        If the kept state is damaged, too large or cannot be written; the client does not go on without it.
    """
    path = path_of(message, context)
    if path is None:
        return _answered(message, context, call_next)
    if not context.state and path.exists():
        context.state = read_state(path)
    before = codec.dump(context.state)
    reply = _answered(message, context, call_next)
    if (after := codec.dump(context.state)) != before:
        write_state(path, after)
    return reply


def _answered(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Answer, and refuse a state that Flower could not carry to the next message; it is as before then."""
    before = RecordDict(dict(context.state))
    reply = call_next(message, context)
    size = wire.records_bytes(context.state)
    if size > MOST_BYTES:
        context.state = before
        raise LetheError(
            f"the client's state: {size / 1e9:.2f} GB, allowed {MOST_BYTES / 1e9:.2f} GB, which Flower "
            "carries from one message to the next; take a smaller model, or a strategy and codec that keep "
            "nothing"
        )
    return reply


def read_state(path: Path) -> RecordDict:
    """Return the state in a file.

    Raises
    ------
    LetheError
        If it is damaged.
    """
    try:
        return codec.load(read_sealed(path).tensors[_CONTENT].numpy().tobytes())
    except (RunCorrupt, KeyError, ValueError):
        raise LetheError(
            f"{KEY}: {path.name} is damaged; restore it from a copy, or delete it to begin anew"
        ) from None


def write_state(path: Path, content: bytes) -> None:
    """Replace the state in a file, on the disk before this returns; its owner alone may read it.

    Raises
    ------
    LetheError
        If the disk does not take it.
    """
    kind = torch.uint8
    tensor = torch.frombuffer(bytearray(content), dtype=kind) if content else torch.empty(0, dtype=kind)
    write_sealed(path, {_CONTENT: tensor}, mode=_OWNER_ALONE)


def path_of(message: Message, context: Context) -> Path | None:
    """Return the client's file for the message's run; None if no state is kept.

    Raises
    ------
    BadInput
        If the node's folder does not exist, or the server's name for the run is malformed.
    """
    record = message.content.config_records.get(wire.CONFIG, ConfigRecord())
    folder, run_id = context.node_config.get(KEY), record.get(wire.RUN_ID)
    if not folder or run_id is None:
        return None
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise BadInput(f"{wire.RUN_ID}: expected at most 64 hexadecimal digits")
    path = Path(str(folder)).expanduser()
    if not path.is_dir():
        raise BadInput(f"{KEY}: the folder in the node's config is not there; make it, with mode 700")
    return path / f"{plain_name(client_id_of(context.node_config))}-{run_id}.safetensors"
