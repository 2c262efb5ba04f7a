"""Make the checkpoint that comes with the package, and the picture of the README.

    python data/make_shapes.py

trains the demo's model for longer than the demo does, rounds its weights to float16, measures the
AP after that rounding, and writes `shapes.pt`, `shapes.json` and `gallery.png` beside this file.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from retinanet_edu import ShapesDataset, evaluate, load_checkpoint, predict, save_checkpoint
from retinanet_edu.demo import run_demo
from retinanet_edu.plotting import plot_gallery
from retinanet_edu.provenance import provenance

EPOCHS = 20
HERE = Path(__file__).parent


def main() -> None:
    start, origin = time.perf_counter(), provenance()  # a checkout may move on meanwhile
    run = HERE.parent / "runs" / "make_shapes"
    run_demo(run, seed=0, epochs=EPOCHS)
    seconds = round(time.perf_counter() - start)
    save_checkpoint(HERE / "shapes.pt", load_checkpoint(run / "last.pt"), half=True)

    model, data = load_checkpoint(HERE / "shapes.pt"), ShapesDataset("val")
    result = evaluate(model, data).as_dict()
    made = {"what": "the demo's model after rounding to float16, on the 200 pictures of val"}
    made |= origin | {"epochs": EPOCHS, "seed": 0, "seconds": seconds}
    (HERE / "shapes.json").write_text(json.dumps(made | result, indent=1) + "\n")
    images = [data[i][0] for i in range(12)]
    found = predict(model, images)
    truths = [data.target(i) for i in range(12)]
    plot_gallery(images, truths, found, model.classes).savefig(HERE / "gallery.png", dpi=90)


if __name__ == "__main__":
    main()
