"""app/report/png.py: another reader of PNG finds the pixels again."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from app.report.png import png_uri
from strategies.core.seeds import numpy_generator


@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3), (2, 3, 4)])
def test_pixels_come_back(shape: tuple[int, ...]) -> None:
    pixels = numpy_generator(0, "png").integers(0, 256, shape, dtype=np.uint8)
    head, _, content = png_uri(pixels).partition(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), pixels)
