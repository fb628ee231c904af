"""Readers of files and messages, fed with damage: a correct read or one clear error, never anything else.

Sixty cases for each in the suite; `LETHE_FUZZ=10000` in the environment makes it as many as that says.
"""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from hypothesis import HealthCheck, given, settings, strategies as st

from app.client.kept_state import read_state, write_state
from app.config.run_config import RunConfig
from app.data.npz import read_npz
from app.deployment.federation_keys import _read_certificate, make_keys
from app.forgettings.signing_key import read_public_key
from app.forgettings.verify import verify
from app.messages import codec
from strategies.core.errors import LetheError
from strategies.core.seeds import torch_generator
from strategies.layers.compression.codec import Codec
from strategies.layers.compression.encoding import decode, encode
from strategies.models.mask import pack, unpack
from strategies.runs import tensor_file
from strategies.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from strategies.runs.json_lines import read_lines
from strategies.runs.tensor_file import read_sealed, write_sealed
from unlearning.request import read_samples

CASES = int(os.environ.get("LETHE_FUZZ", "60"))
FUZZED = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SHAPES = ((4, 3), (5,))
TENSORS = {"w": torch.arange(12.0).reshape(4, 3), "n": torch.tensor([3])}


@dataclass(frozen=True)
class Reader:
    """What is read: how a right one is written, how it is read, and which errors are clear ones."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...] = (LetheError,)


def _npz(path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, x_train=x, y_train=np.arange(6) % 2)


def _compressed(text: str) -> bytes:
    generator = torch_generator(0, "fuzzing")
    return encode(torch.randn(17, generator=generator), SHAPES, Codec.parse(text), 1)


def _payload(text: str) -> Reader:
    """Return the reader of an encoded update, kept in a file for the sake of the others."""
    return Reader(
        lambda path: path.write_bytes(_compressed(text)),
        lambda path: decode(path.read_bytes(), SHAPES),
        (ValueError,),
    )


def _public_key(path: Path) -> None:
    public = Ed25519PrivateKey.generate().public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _state() -> bytes:
    return codec.dump(RecordDict({"a": ArrayRecord([np.ones(3)]), "c": ConfigRecord({"n": [1, 2]})}))


def _certificate(path: Path) -> None:
    made = make_keys(path.parent / "keys", ["localhost"], ()).folder
    path.write_bytes((made / "ca.pem").read_bytes())


READERS: Mapping[str, Reader] = {
    "tensor file": Reader(lambda path: write_sealed(path, TENSORS, {"a": "b"}), read_sealed),
    "checkpoint": Reader(
        lambda path: write_checkpoint(
            path, Checkpoint(3, TENSORS, {"seconds": 1.0}, client_states={1: b"x"})
        ),
        read_checkpoint,
    ),
    "kept state": Reader(lambda path: write_state(path, _state()), read_state),
    "run config": Reader(
        lambda path: path.write_text(RunConfig().to_toml(), encoding="utf-8"), RunConfig.from_toml
    ),
    "json lines": Reader(
        lambda path: path.write_text('{"round": 1, "loss": 0.5}\n{"round": 2}\n', encoding="utf-8"),
        read_lines,
    ),
    "samples": Reader(
        lambda path: path.write_text('{"3": [0, 5, 7], "ward": [1]}', encoding="utf-8"), read_samples
    ),
    "npz": Reader(_npz, read_npz),
    "certificate of forgetting": Reader(
        lambda path: path.write_text(json.dumps({"format": "x", "statement": {}}), encoding="utf-8"), verify
    ),
    "public key": Reader(_public_key, read_public_key),
    "certificate of the authority": Reader(_certificate, _read_certificate),
    "records": Reader(
        lambda path: path.write_bytes(_state()), lambda path: codec.load(path.read_bytes()), (ValueError,)
    ),
    "mask": Reader(
        lambda path: path.write_bytes(pack(torch.arange(40) % 3 == 0)),
        lambda path: unpack(path.read_bytes(), 40),
        (ValueError,),
    ),
    **{
        f"update as {text}": _payload(text)
        for text in ("identity", "top-k+int8", "random-k+sign", "int4", "low-rank")
    },
}


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw what happens to a file: bytes replaced, cut out, put in or repeated, or all of it is another."""
    kind = draw(st.sampled_from(["replace", "cut", "insert", "repeat", "other"]))
    where, length = draw(st.floats(0, 1)), draw(st.integers(1, 12))
    what = draw(st.binary(min_size=1, max_size=12))

    def apply(content: bytes) -> bytes:
        start = int(where * len(content))
        end = start + length
        return {
            "replace": content[:start] + what + content[start + len(what) :],
            "cut": content[:start] + (b"" if length > 10 else content[end:]),
            "insert": content[:start] + what + content[start:],
            "repeat": content[:end] + content[start:],
            "other": what * length,
        }[kind]

    return apply


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Return the bytes of a right file of each kind, written once."""
    folder, known = tmp_path_factory.mktemp("right"), dict[str, bytes]()

    def content(name: str) -> bytes:
        if name not in known:
            path = folder / name.replace(" ", "-")
            READERS[name].write(path)
            known[name] = path.read_bytes()
        return known[name]

    return content


@pytest.mark.parametrize("name", READERS)
@FUZZED
@given(change=damage())
def test_damage_is_read_or_refused(
    name: str, change: Callable[[bytes], bytes], right: Callable[[str], bytes], memory_path: Path
) -> None:
    path = memory_path / "file"
    path.write_bytes(change(right(name)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(*READERS[name].errors):
            READERS[name].read(path)


HEADERS: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**66)
    | st.text(max_size=4)
    | st.sampled_from(["F32", "I64"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]), inner)
    ),
    max_leaves=12,
)


@FUZZED
@given(header=HEADERS, body=st.binary(max_size=40))
def test_a_header_that_says_anything_is_read_or_refused(header: Any, body: bytes) -> None:
    """Also where the seal is right: whoever wrote the file can have sealed whatever he liked."""
    text = json.dumps(header).encode()
    with suppress(ValueError):
        tensor_file.decode(bytearray(len(text).to_bytes(8, "little") + text + body))


@pytest.mark.parametrize("name", READERS)
def test_what_is_right_is_read(name: str, right: Callable[[str], bytes], tmp_path: Path) -> None:
    """So that the cases above do not all end at the first byte."""
    path = tmp_path / "file"
    path.write_bytes(right(name))
    if name != "certificate of forgetting":
        READERS[name].read(path)
