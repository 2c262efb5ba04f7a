"""Write the photograph of the explorable `pyramid`: small, grey, inside a script.

    python data/make_pyramid_data.py

takes the astronaut of scikit-image (NASA, public domain) and writes
`book/_static/explorables/pyramid.data.js`.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image
from skimage.data import astronaut

TARGET = Path(__file__).parent.parent / "book/_static/explorables/pyramid.data.js"
SIDE = 384  # of 512: nobody sees the difference below anchors

HEAD = """\
// The astronaut of scikit-image (NASA, public domain), written by data/make_pyramid_data.py.
"""


def text() -> str:
    """The whole file."""
    small = Image.fromarray(astronaut()).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=40, optimize=True)
    address = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return f'{HEAD}(window.explorableData ??= {{}}).pyramid =\n  "{address}";\n'


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")
