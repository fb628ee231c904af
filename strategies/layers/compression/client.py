"""The client's side: take the model in, and send what changed, with what earlier rounds left out.

Error feedback (Seide et al., Interspeech 2014; Karimireddy et al., arXiv 1901.09847): with e the residual and
δ the update,

    sent = C(δ + e),   e ← δ + e − sent   once the server says that it has used what was sent.

Whether it has comes with the next message: it names the version of the model that the client's last reply
which counted was an answer to. Until then both residuals are kept, that from before the reply and that after
it. A reply that was late, lost, rejected or one too many leaves e as it was, as if the client had not been
asked.

The residuals and, where models travel as differences, the last version of the model are kept in the client's
``context.state``. A client that is not asked, or whose round fails, keeps them; those of another training,
such as a retraining, are not used.
"""

from collections.abc import Callable, Mapping
from typing import final

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from strategies.core import wire
from strategies.layers.compression.encoding import decode, encode
from strategies.layers.compression.settings import CompressionSettings

_STATE = "compression"
_STATUS = "compression-facts"
_MODEL, _RESIDUAL, _NEXT = "model", "residual", "next-residual"
_ANSWERED = "answered"  # The version that the last reply answered


class LostVersion(Exception):
    """The client does not have the version of the model that differences were sent for."""


@final
class ClientLink:
    """A client's compression state between the rounds of one training.

    Parameters
    ----------
    state
        The client's ``context.state``.
    mask
        Which parameters may differ from zero, shape [P], bool; None: all.
    """

    def __init__(
        self,
        settings: CompressionSettings,
        content: RecordDict,
        state: RecordDict,
        layout: wire.Layout,
        mask: Tensor | None = None,
    ) -> None:
        self._settings = settings
        self._content = content
        self._config = content.config_records[wire.CONFIG]
        self._state = state
        self._layout = layout
        self._mask = mask
        self._start = torch.zeros(0)
        if self._status.get(wire.LINK) != self._config[wire.LINK]:
            self._state.pop(_STATE, None)
            self._state[_STATUS] = ConfigRecord({wire.LINK: str(self._config[wire.LINK]), wire.VERSION: 0})
        self._settle()

    def _settle(self) -> None:
        """Take the residual after the last reply if that was used, and keep the one before it if not."""
        answered, left = self._status.pop(_ANSWERED, None), self._get(_NEXT)
        self._kept.pop(_NEXT, None)
        if answered is None or answered != self._config.get(wire.USED_VERSION):
            return
        self._kept.pop(_RESIDUAL, None)
        if left is not None:
            self._put(_RESIDUAL, left)

    @staticmethod
    def wanted(content: RecordDict) -> bool:
        """Say whether the server takes part in the compression of this message."""
        return wire.LINK in content.config_records.get(wire.CONFIG, ConfigRecord())

    @property
    def version(self) -> int:
        """Which version of the model the client has; 0 for none."""
        return int(str(self._status.get(wire.VERSION, 0)))

    @property
    def _status(self) -> ConfigRecord:
        return self._state.config_records.get(_STATUS, ConfigRecord())

    def receive(self) -> ArrayRecord:
        """Return the model after the message; keep it if the next message brings a difference.

        Raises
        ------
        LostVersion
            If the message has differences from a version that is not here; what is here is given up.
        ValueError
            If the message is damaged.
        """
        version, base = self._config.get(wire.VERSION), self._config.get(wire.BASE_VERSION)
        if not isinstance(version, int):
            raise ValueError(f"the message does not say which '{wire.VERSION}' of the model it brings")
        if base is None:
            if wire.ARRAYS not in self._content.array_records:
                raise ValueError("the message brings neither a model nor differences")
            flat = wire.flat_of(self._content.array_records[wire.ARRAYS], self._layout)
        else:
            kept = self._get(_MODEL)
            if kept is None or self.version != base:
                self._status[wire.VERSION] = 0
                raise LostVersion(f"version {base!s} of the model is not here")
            flat = kept.clone()
            for payload in payloads_in(self._content):
                flat += decode(payload, self._layout.shapes)
        if not self._settings.down.is_neutral(self._layout.shapes):
            self._put(_MODEL, flat)
        self._status[wire.VERSION] = version
        self._start = self._masked(flat)
        return wire.FlatRecord(flat, self._layout)

    def _masked(self, flat: Tensor) -> Tensor:
        return flat if self._mask is None else flat * self._mask

    def reply(
        self,
        message: Message,
        client_id: str,
        metrics: Mapping[str, float],
        model: nn.Module,
        seed: int,
        accuracy: Callable[[], float],
    ) -> Message:
        """Answer with a trained model's encoded update, with the model, or with a note that it is withheld.

        Parameters
        ----------
        message, client_id, metrics
            As in `wire.reply_to`.
        model
            As trained from what `receive` returned.
        accuracy
            Measures the trained model on the client's own data, in percent.
        """
        settings, shapes = self._settings, self._layout.shapes
        new = self._layout.flatten(model.state_dict())
        left = self._get(_RESIDUAL) if settings.error_feedback else None
        update = new - self._start if left is None else new - self._start + left
        config: dict[str, bool | int | float | str] = {wire.VERSION: self.version}
        if self._is_withheld(update, accuracy):
            self._keep_residual(update)
            return wire.reply_to(message, client_id, metrics, config={**config, wire.WITHHELD: True})
        if settings.up.is_neutral(shapes) and left is None:
            return wire.reply_to(message, client_id, metrics, wire.FlatRecord(new, self._layout), config)
        payload = encode(update, shapes, settings.up, seed)
        self._keep_residual(update - self._masked(decode(payload, shapes)))
        reply = wire.reply_to(message, client_id, metrics, config=config)
        reply.content[wire.CODED] = ConfigRecord({wire.PAYLOAD: [payload]})
        return reply

    def _is_withheld(self, update: Tensor, accuracy: Callable[[], float]) -> bool:
        settings = self._settings
        length = float(torch.linalg.vector_norm(update))
        if not length < settings.upload_threshold * float(torch.linalg.vector_norm(self._start)):
            return False  # A NaN is sent as well, and the guard reports it
        return not (settings.upload_accuracy and accuracy() >= settings.upload_accuracy)

    def _keep_residual(self, residual: Tensor) -> None:
        """Keep the residual that is left if the reply is used; none without error feedback."""
        if not self._settings.error_feedback:
            return
        self._status[_ANSWERED] = self.version
        if bool(residual.any()):
            self._put(_NEXT, residual)

    @property
    def _kept(self) -> ArrayRecord:
        if _STATE not in self._state.array_records:
            self._state[_STATE] = ArrayRecord()
        return self._state.array_records[_STATE]

    def _get(self, name: str) -> Tensor | None:
        if name not in self._kept:
            return None
        flat = torch.from_numpy(np.array(self._kept[name].numpy()))
        return flat if flat.shape == (self._layout.size,) else None

    def _put(self, name: str, flat: Tensor) -> None:
        self._kept[name] = Array(flat.numpy())


def payloads_in(content: RecordDict) -> list[bytes]:
    """Return the encoded vectors of a message; ValueError if it has none."""
    payloads = content.config_records.get(wire.CODED, ConfigRecord()).get(wire.PAYLOAD)
    if not isinstance(payloads, list) or not all(isinstance(payload, bytes) for payload in payloads):
        raise ValueError(f"the record '{wire.CODED}' has no list of payloads")
    return [payload for payload in payloads if isinstance(payload, bytes)]
