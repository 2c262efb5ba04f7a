"""Write the objects of VOC for the explorable `anchors`: sizes, and a place for each.

    python data/make_anchors_data.py

reads `voc_box_sizes.json` and writes `book/_static/explorables/anchors.data.js`. The places are
those that chapter 7 draws, so that the figure's shares are the chapter's.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

HERE = Path(__file__).parent
TARGET = HERE.parent / "book/_static/explorables/anchors.data.js"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
STEPS = len(DIGITS) ** 2  # what two digits tell apart
AN_OBJECT = 8  # characters
A_LINE = 12  # objects

HEAD = """\
// Objects of PASCAL VOC 2007 that are not difficult, written by data/make_anchors_data.py.
//
// Eight characters an object, two digits of base 36 each: width and height in 1/1000 of the longer
// side of its picture; x and y of a random place, as 1/1296 of 128 pixels.
"""


def write(number: int) -> str:
    """Two digits."""
    return DIGITS[number // len(DIGITS)] + DIGITS[number % len(DIGITS)]


def text() -> str:
    """The whole file."""
    voc = json.loads((HERE / "voc_box_sizes.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)  # as the chapter's `setup` does, which then draws nothing else
    places = (torch.rand(len(voc["width"]), 2) * STEPS).int().tolist()
    columns = zip(voc["width"], voc["height"], voc["difficult"], places, strict=True)
    objects = "".join(
        "".join(map(write, (width, height, x, y)))
        for width, height, difficult, (x, y) in columns
        if not difficult
    )
    step = AN_OBJECT * A_LINE
    lines = [f'  "{objects[i : i + step]}",' for i in range(0, len(objects), step)]
    body = "\n".join(lines)
    return f'{HEAD}(window.explorableData ??= {{}}).anchors = [\n{body}\n].join("");\n'


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")
