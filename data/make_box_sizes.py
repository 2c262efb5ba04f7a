"""Record how large the objects of PASCAL VOC are, as numbers, for the chapter on anchors.

    RETINANET_EDU_VOC=FOLDER python data/make_box_sizes.py

reads all annotations of `trainval` of the VOC 2007 in FOLDER, complete or in part, and writes
`voc_box_sizes.json` beside this file: width, height, class and difficult flag of each object, and
nothing that tells where on which picture it lies. FOLDER contains `VOCdevkit`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from retinanet_edu import VOCDataset
from retinanet_edu.data.images import image_size

UNIT = 1000  # sizes are in thousandths of the longer side, rounded: the boxes are no finer
HERE = Path(__file__).parent


def main() -> None:
    root = Path(os.environ["RETINANET_EDU_VOC"])
    data = VOCDataset(root, split="trainval")
    columns: dict[str, list[int]] = {"width": [], "height": [], "label": [], "difficult": []}
    for i in range(len(data)):
        target = data.target(i)
        boxes = target["boxes"] * (UNIT / max(image_size(data.image_path(i))))  # (M, 4)
        sides = (boxes[:, 2:] - boxes[:, :2]).round().int()  # (M, 2)
        columns["width"] += sides[:, 0].tolist()
        columns["height"] += sides[:, 1].tolist()
        columns["label"] += target["labels"].tolist()
        columns["difficult"] += target["difficult"].int().tolist()

    header = {
        "what": "size, class and difficult flag of each object, picture after picture",
        "unit": f"width and height in 1/{UNIT} of the longer side of the object's picture",
        "source": f"PASCAL VOC 2007, the annotations of {len(data)} pictures",
        "command": "RETINANET_EDU_VOC=FOLDER python data/make_box_sizes.py",
    }
    beside = root / "subset.json"  # what a selection of VOC says about itself
    if beside.is_file():
        subset = json.loads(beside.read_text(encoding="utf-8"))
        header["source"] += f" chosen from: {subset['source']}"
        header["chosen by"] = subset["rule"]
    lines = [json.dumps(key) + ": " + json.dumps(value) for key, value in header.items()]
    lines += [f'"pictures": {len(data)}', f'"classes": {json.dumps(data.classes)}']
    # One line a column: a line for each number would be fifty times as long to read.
    lines += [f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in columns.items()]
    text = "{\n " + ",\n ".join(lines) + "\n}\n"
    (HERE / "voc_box_sizes.json").write_text(text, encoding="utf-8")
    print(f"{len(columns['width'])} objects in {len(data)} pictures, {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
