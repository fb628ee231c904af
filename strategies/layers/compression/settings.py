"""Settings of the section ``compression``: what travels instead of whole models."""

from pydantic import Field, field_validator

from strategies.core.settings import Settings
from strategies.layers.compression.codec import Codec


class CompressionSettings(Settings):
    """How updates travel up, and models down.

    Attributes
    ----------
    codec
        What a client's update is encoded with: one of ``top-k``, ``random-k`` and ``low-rank``, one of
        ``int8``, ``int4`` and ``sign``, or one of each with a plus sign, such as ``top-k+int8``;
        ``identity``, which leaves it as it is; neutral ``none``: no part of this section has an effect.
    down_codec
        The same for the change of the model on its way to clients that hold its last version; neutral
        ``identity``: the model itself travels.
    keep
        ``top-k`` and ``random-k``: share of the entries that travel up, in (0, 1]; neutral 1.
    down_keep
        The same, down.
    rank
        ``low-rank``: rank of each matrix, at least 1; neutral where it is that of the matrix.
    error_feedback
        Whether a client adds what was not sent to its next update.
    upload_threshold
        A client whose update is shorter than this share of the model's length sends none; at least 0;
        neutral 0.
    upload_accuracy
        Accuracy on the client's own data, in percent, from which on it sends its update all the same; in
        [0, 100]; neutral 0: never.
    """

    codec: str = "none"
    down_codec: str = "identity"
    keep: float = Field(default=0.01, gt=0, le=1)
    down_keep: float = Field(default=0.05, gt=0, le=1)
    rank: int = Field(default=4, ge=1, le=65535)
    error_feedback: bool = True
    upload_threshold: float = Field(default=0.0, ge=0)
    upload_accuracy: float = Field(default=0.0, ge=0, le=100)

    @property
    def on(self) -> bool:
        """Whether anything is encoded, or may be withheld."""
        return self.codec != "none"

    @property
    def up(self) -> Codec:
        """How updates are encoded."""
        return Codec.parse(self.codec, self.keep, self.rank, unbiased=not self.error_feedback)

    @property
    def down(self) -> Codec:
        """How changes of the model are encoded; what is left out of one is part of the next."""
        return Codec.parse(self.down_codec, self.down_keep, self.rank)

    @field_validator("codec")
    @classmethod
    def _codec_parses(cls, value: str) -> str:
        if value != "none":
            Codec.parse(value)
        return value

    @field_validator("down_codec")
    @classmethod
    def _down_codec_parses(cls, value: str) -> str:
        Codec.parse(value)
        return value
