"""A worker's answer to a message: runs the ClientApp as Flower would, with the state that came along."""

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from app.messages import codec
from strategies.client.pausing import Pausing, PausingApp
from strategies.client.side_by_side import OnTurn, Report, side_by_side
from strategies.client.stacked import Limits
from strategies.core.errors import LetheError

RUN_ID = 1
_REASON_LENGTH = 500
_OWN_STEPS = "they take no plain local steps"
_reported: set[str] = set()


def load_object(path: str) -> object:
    """Return the object that an import path such as ``app.client_app:app`` names.

    Raises
    ------
    LetheError
        If there is none.
    """
    module_name, _, attribute = path.partition(":")
    module = importlib.import_module(module_name)
    if not hasattr(module, attribute):
        raise LetheError(f"module '{module_name}' has no '{attribute}'")
    return getattr(module, attribute)


def load_client_app(path: str) -> ClientApp:
    """Return the ClientApp that an import path names.

    Raises
    ------
    LetheError
        If it names something else.
    """
    found = load_object(path)
    if not isinstance(found, ClientApp):
        raise LetheError(f"'{path}' is of type {type(found).__name__}, expected a ClientApp")
    return found


@dataclass(frozen=True, eq=False)
class Given:
    """A message for a client, and the client's state.

    Parameters
    ----------
    shared
        The message with records that those of other messages may be, which are not to be changed.
    own
        Returns it with records of its own.
    """

    shared: Message
    own: Callable[[], Message]
    state: bytes


Answer = tuple[RecordDict | Error, bytes]
"""What a client answers, and its state afterwards."""


@dataclass(frozen=True)
class Clients:
    """The simulated clients, as each worker knows them; client i has node id i + 1."""

    app: ClientApp
    run_config: UserConfig
    node_configs: Sequence[UserConfig]

    def answer_together(
        self, given: Sequence[Given], where_faster: bool, on_turn: OnTurn
    ) -> tuple[list[Answer], Report]:
        """Return what `answer` returns for each message and state, whose clients train side by side.

        With it comes how many trainings did so, and why others did not.
        """
        report = Report()
        works = [self._work(each) for each in given]
        answers = side_by_side(works, Limits(len(given), where_faster), on_turn, report)
        silent = sum(isinstance(answers[number][0], RecordDict) for number in report.silent)
        report.alone.update({_OWN_STEPS: silent} if silent else {})
        return answers, report

    def _work(self, given: Given) -> Callable[[], Answer] | Pausing[Answer]:
        """Return what answers a message: without a thread, where the app can."""
        if isinstance(self.app, PausingApp):
            context = self._context(given.shared.metadata.dst_node_id, given.state)
            if (content := self.app.pausing(given.shared, context)) is not None:
                return self._answered(content, context, given.state)
        return partial(self.answer, given.own(), given.state)

    def _answered(self, content: Pausing[RecordDict], context: Context, state: bytes) -> Pausing[Answer]:
        try:
            found = yield from content
            return found, _dumped(context)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (as below)
            return _failed(error), state

    def answer(self, message: Message, state: bytes) -> Answer:
        """Return the addressed client's answer and its state afterwards, which an error leaves unchanged.

        States are as `codec.dump` writes them.
        """
        context = self._context(message.metadata.dst_node_id, state)
        try:
            reply = self.app(message, context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned {type(reply).__name__}, expected a Message")
            if reply.has_error():
                return reply.error, state
            return reply.content, _dumped(context)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a client raises is its error reply)
            return _failed(error), state

    def _context(self, node_id: int, state: bytes) -> Context:
        node_config, run_config = dict(self.node_configs[node_id - 1]), dict(self.run_config)
        return Context(RUN_ID, node_id, node_config, codec.load(state), run_config)


def _dumped(context: Context) -> bytes:
    return codec.dump(context.state) if context.state else b""


def _failed(error: BaseException) -> Error:
    return Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, explain(error))


def explain(error: BaseException) -> str:
    """Return what went wrong and where; print the traceback the first time that a place fails unforeseen."""
    place = _place(error.__traceback__)
    if place not in _reported and not isinstance(error, LetheError):
        _reported.add(place)
        traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {str(error)[:_REASON_LENGTH]} ({place})"


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    if not own:
        return "no traceback"
    last = own[-1]
    return f"{last.filename.rpartition('/')[2]}:{last.lineno} in {last.name}"


def config_of(values: Mapping[str, object]) -> UserConfig:
    """Return a config, checked to hold only values that Flower allows.

    Raises
    ------
    LetheError
        If a value is of another type.
    """
    config: UserConfig = {}
    for key, value in values.items():
        if not isinstance(value, bool | int | float | str):
            raise LetheError(
                f"config '{key}' is of type {type(value).__name__}, expected bool, int, float or str"
            )
        config[key] = value
    return config
