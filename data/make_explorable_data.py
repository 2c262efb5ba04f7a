"""Write the data of explorables: the ledgers of `ap`, the candidates of `nms`.

    python data/make_explorable_data.py

computes them with the package, from the demo's detector and from `voc_model/` beside this file,
and writes `NAME.data.js` into the book's folder of explorables.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from retinanet_edu import AnchorGenerator, ShapesDataset, load_checkpoint, postprocess
from retinanet_edu.data.transforms import EvalTransform, scale_boxes
from retinanet_edu.evaluation import match_detections
from retinanet_edu.structures import Detections

RECORD = Path(__file__).parent / "voc_model" / "candidates_astronaut"
OUTPUT = Path(__file__).parents[1] / "book" / "_static" / "explorables"
THRESHOLDS = (0.5, 0.75, 0.9)  # the IoU that a ledger asks for
PICTURES = 60  # of val, as in chapter 14
CLASSES = ("disc", "crescent")
LOWEST = 0.3  # of the scores of candidates
SIDE, QUALITY = 320, 55  # of the photograph that a page shows

# Chapter 14's squared paper: two objects, and the detections A, B, C and D.
OBJECTS = [[1.0, 1, 6, 6], [8, 1, 13, 6]]
BOXES = [[1.0, 1, 6, 5.5], [1.5, 1.5, 6.5, 6], [16, 2, 20, 6], [8.5, 1, 13, 6.5]]


def ledger(found: list[Detections], truths: list[Any], label: int) -> dict[str, Any]:
    """One class: how many objects, the scores, and by IoU a letter for each detection."""
    page: dict[str, Any] = {"fates": {}}
    for threshold in THRESHOLDS:
        one = match_detections(found, truths, label, threshold)
        fates = zip(one.true_positive, one.ignored, strict=True)
        letters = "".join("T" if true else "I" if ignored else "F" for true, ignored in fates)
        page["fates"][threshold] = letters
        page |= {"objects": one.objects, "scores": [round(s, 3) for s in one.scores.tolist()]}
    return page


@torch.no_grad()
def ledgers() -> dict[str, Any]:
    """By name: the four detections worked out by hand, and two classes of the demo's detector."""
    label = torch.zeros(4, dtype=torch.int64)
    four = Detections(torch.tensor(BOXES), torch.tensor([0.9, 0.8, 0.7, 0.6]), label)
    found = {"hand": ledger([four], [{"boxes": torch.tensor(OBJECTS), "labels": label[:2]}], 0)}
    model, shapes = load_checkpoint("shapes"), ShapesDataset("val")
    sizes, detections = [(128, 128)], []
    for i in range(PICTURES):
        image = EvalTransform(128).image(shapes[i][0])
        detections += postprocess(model(image[None]), model.anchors(sizes[0]), sizes)
    truths = [shapes.target(i) for i in range(PICTURES)]
    return found | {
        name: ledger(detections, truths, shapes.classes.index(name)) for name in CLASSES
    }


def candidates() -> dict[str, Any]:
    """Those of the photograph `astronaut` with a score above `LOWEST`, best first.

    Returns:
        scores, names of the classes, boxes and anchors x1 y1 x2 y2 in pixels of the photograph,
        its size, and the photograph itself, small and grey, as the address of an image.
    """
    page = json.loads(RECORD.with_suffix(".json").read_text(encoding="utf-8"))
    count = sum(score > LOWEST for score in page["scores"])
    with np.load(RECORD.with_suffix(".npz")) as file:
        seen, padded = (tuple(file[f"{name}_size"].tolist()) for name in ("image", "padded"))
    places = torch.tensor(page["anchors"][:count])
    anchors: Tensor = AnchorGenerator()(padded)[places]
    anchors = scale_boxes(anchors, seen, (page["height"], page["width"]))
    small = Image.fromarray(astronaut()).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=QUALITY)
    return {
        "width": page["width"],
        "height": page["height"],
        "scores": page["scores"][:count],
        "classes": [page["classes"][label] for label in page["labels"][:count]],
        "boxes": page["boxes"][:count],
        "anchors": [[round(x, 1) for x in box] for box in anchors.tolist()],
        "photograph": "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode(),
    }


def write(name: str, what: str, content: dict[str, Any]) -> None:
    """A script that a page can load from the disk, where it could not fetch JSON."""
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}," for k, v in content.items()]
    head = f"// {what}\n// Made by data/make_explorable_data.py.\n"
    text = f"{head}(window.explorableData ??= {{}}).{name} = {{\n" + "\n".join(lines) + "\n};\n"
    (OUTPUT / f"{name}.data.js").write_text(text, encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    what = "Detections by score, best first: T true, F false, I of a difficult object."
    write("ap", what, ledgers())
    what = "Best candidates of NASA's astronaut Eileen Collins, a photograph in the public domain."
    write("nms", what, candidates())


if __name__ == "__main__":
    main()
