"""Commands that look at pictures: `predict`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from retinanet_edu.cli.options import NewCommand, chosen_device, write_output
from retinanet_edu.errors import DataError


def _predict(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.data.images import read_image
    from retinanet_edu.detection import predict
    from retinanet_edu.plotting import plot_detections

    model = load_checkpoint(options.checkpoint, device=chosen_device(options)).for_inference()
    options.output.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    failed: list[Path] = []
    taken: set[str] = set()
    # No plot may take the place of a picture that was given; small letters, as some systems
    # do not tell them apart.
    given = {str(path.resolve()).casefold() for path in options.images}
    for number, path in enumerate(options.images):
        try:
            image = read_image(path)
        except DataError as error:  # the other pictures are not lost for it
            print(f"retinanet-edu: {error}", file=sys.stderr)
            failed.append(path)
            continue
        detections = predict(model, image, score_threshold=options.score)
        picture = options.output / f"{path.stem}.png"
        while (place := str(picture.resolve()).casefold()) in given | taken:
            picture = picture.with_name(f"{picture.stem}-{number}.png")
        taken.add(place)
        plot_detections(image, detections, model.classes, options.score).savefig(picture)
        entries = [
            {"class": model.classes[k], "score": round(s, 4), "box": [round(c, 2) for c in box]}
            for k, s, box in zip(
                detections.labels.tolist(),
                detections.scores.tolist(),
                detections.boxes.tolist(),
                strict=True,
            )
        ]
        found.append({"image": str(path), "picture": picture.name, "detections": entries})
        names = ", ".join(f"{e['class']} {e['score']:.2f}" for e in entries) or "nothing"
        print(f"{path}: {names}")
    write_output(options.output / "detections.json", json.dumps(found, indent=1) + "\n")
    print(f"pictures and detections.json in {options.output}")
    if failed:
        raise DataError(f"{len(failed)} of {len(options.images)} pictures could not be read")


def add_commands(command: NewCommand) -> None:
    """Register `predict`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("predict", _predict, "Detect objects in pictures.")
    sub.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    sub.add_argument("--output", type=Path, required=True, help="folder for pictures and JSON")
    sub.add_argument("--score", type=float, default=0.5, help="show detections from this score on")
    sub.add_argument("--device", help="default: cuda where there is one")
