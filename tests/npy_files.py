"""Arrays in numpy's format: right ones of any kind, and headers that say anything of what follows."""

import io
from contextlib import suppress

import numpy as np
from hypothesis import strategies as st

DTYPES = [
    *("float32", "float64", "float16", "longdouble", ">f8", "complex64", "uint8", "int64", ">i4", "uint64"),
    *("bool", "<U3", "S2", "datetime64[s]", "timedelta64[D]", "V3", "f4,i4", "(2,)f4", "object"),
]
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple) | st.sampled_from([(6,), (6, 4), (6, 2, 2)])
FILLS = st.sampled_from([0, 1, 2, 255, -1, 2**40, 2**63, 1e300, float("nan"), float("inf"), "a", None])
DESCRIPTIONS = [
    "'<f4'",
    "'|O'",
    "'<f4', ",
    "3",
    "[('a', '<f4')]",
    "('<f4', (2,))",
    "{}",
    "'<M8[s]'",
    "'<f999'",
]
EXTENTS = [
    *(
        "(6, 4)",
        "(6,)",
        "()",
        "(-1,)",
        "(2**40,)",
        "(1099511627776, 4)",
        "(4611686018427387904, 4)",
        "6",
        "'a'",
    ),
    *("(1.5,)", "(True, 4)", "(6L, 4L)", "[6, 4]", "(" * 300, "((6,),)"),
]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    """Draw what numpy writes for some array."""
    dtype, shape, fill = draw(st.sampled_from(DTYPES)), draw(SHAPES), draw(FILLS)
    array = np.zeros(shape, dtype)
    with suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):
        array[...] = fill
    return npy(array)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Draw an array whose header says anything."""
    description, extent = draw(st.sampled_from(DESCRIPTIONS)), draw(st.sampled_from(EXTENTS))
    order = draw(st.sampled_from(["False", "True", "0", "None", "1 +"]))
    text = f"{{'descr': {description}, 'fortran_order': {order}, 'shape': {extent}, }}".encode()
    version, length = draw(st.sampled_from([1, 2, 3, 9])), len(text) + draw(st.sampled_from([0, 0, 0, -1, 9]))
    size = length.to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + draw(st.binary(max_size=96))
