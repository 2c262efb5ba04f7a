"""Record what a detector trained on photographs says, for readers without it.

    python data/make_voc_records.py --checkpoint FILE [--voc FOLDER]

reads a checkpoint that `retinanet-edu train` made of PASCAL VOC, and writes small files into
`voc_model/` beside this one: maps of the backbone and the pyramid, and the pairs of anchor and
class that pass the threshold, of free photographs that come with scikit-image. With FOLDER, which
contains `VOCdevkit`, also how the loss is spread over the answers on its `val`, as numbers. No
weight and no picture of VOC is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

from retinanet_edu import RetinaNet, VOCDataset, load_checkpoint, predict
from retinanet_edu.boxes import clip_boxes
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform, normalise, picture_size, scale_boxes
from retinanet_edu.detection import SCORE_THRESHOLD, TOP_K, _candidates
from retinanet_edu.matching import BACKGROUND, match_targets
from retinanet_edu.provenance import provenance

OUTPUT = Path(__file__).parent / "voc_model"
RESULTS = "results/voc-subset-resnet18.json"  # how good the model is, measured
LEVELS = ("C3", "C4", "C5", "P3", "P4", "P5", "P6", "P7")
CHANNELS = 6  # of each level, beside the mean and the largest of all its channels
ALIKE = 0.7  # channels that correlate by more show the same
MOST_ON_A_PAGE = 200
SHOWN = 0.2  # of the list of what it finds in each photograph
GAMMAS = (0, 0.5, 1, 2)  # of the paper's Figure 4
# Shares of the answers, easiest first: even steps, and then ever finer ones up to a millionth.
SHARES = np.unique(np.append(np.linspace(0, 1, 101), 1 - np.logspace(-2, -6, 100))).round(8)


def photographs() -> dict[str, Tensor]:
    """Free photographs by name, uint8 (3, H, W)."""
    arrays = {name: getattr(data, name)() for name in ("chelsea", "astronaut", "coffee", "rocket")}
    arrays["motorcycle_left"] = data.stereo_motorcycle()[0]
    return {name: torch.from_numpy(array).movedim(-1, 0) for name, array in arrays.items()}


@torch.no_grad()
def maps(model: RetinaNet, photo: Tensor) -> dict[str, np.ndarray]:
    """C3…P7 of a photograph at its own size.

    Args:
        model: in evaluation mode.
        photo: uint8 (3, H, W).

    Returns:
        by name of the level float16 (2 + channels, H / s, W / s): the mean of the absolute values
        of all channels, the largest of them, and the channels that vary most and are not alike;
        and by "P3_channels" the numbers of those channels.
    """
    c = model.backbone(normalise(photo)[None])
    found = {}
    for name, (level,) in zip(LEVELS, [*c, *model.fpn(c)], strict=True):  # level (C, H/s, W/s)
        flat = level.flatten(1)  # (C, H/s · W/s)
        alike = flat.corrcoef().abs().nan_to_num()  # (C, C)
        chosen: list[int] = []
        for i in flat.std(dim=1).argsort(descending=True).tolist():
            if len(chosen) < CHANNELS and (alike[i, chosen] < ALIKE).all():
                chosen.append(i)
        summary = torch.stack([level.abs().mean(dim=0), level.abs().amax(dim=0)])
        found[name] = torch.cat([summary, level[chosen]]).half().numpy()
        found[f"{name}_channels"] = np.array(chosen, dtype=np.int16)
    return found


@torch.no_grad()
def candidates(model: RetinaNet, photo: Tensor) -> dict[str, np.ndarray]:
    """The pairs of anchor and class that go into suppression, level by level, best first.

    Args:
        model: in evaluation mode.
        photo: uint8 (3, H, W).

    Returns:
        scores (C,), labels (C,), anchors (C,) as their places among the N, and offsets (C, 4) of
        each pair; `picture_size` of the photograph, `image_size` that the network saw and
        `padded_size` after padding, (H, W) each; `anchors_per_level`.
    """
    image = EvalTransform(model.image_size).image(photo)
    padded = pad_images([image])
    said = model(padded)
    found = _candidates(said.class_logits, said.anchors_per_level, SCORE_THRESHOLD, TOP_K)
    scores, anchors, labels = (numbers[found.scores >= 0] for numbers in found)  # (C,), best first
    ends = torch.tensor(said.anchors_per_level).cumsum(dim=0)
    by_level = torch.bucketize(anchors, ends, right=True).argsort(stable=True)
    scores, anchors, labels = scores[by_level], anchors[by_level], labels[by_level]
    sizes = {"picture_size": photo, "image_size": image, "padded_size": padded}
    return {
        "scores": scores.numpy(),
        "labels": labels.numpy().astype(np.uint8),
        "anchors": anchors.numpy().astype(np.uint16),
        "offsets": said.box_deltas[0][anchors].numpy(),
        "anchors_per_level": np.array(said.anchors_per_level),
    } | {name: np.array(picture_size(picture)) for name, picture in sizes.items()}


def for_a_page(model: RetinaNet, name: str, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """The best candidates of a photograph in its own pixels, best first, for a script."""
    (height, width), seen, padded = (
        tuple(found[key].tolist()) for key in ("picture_size", "image_size", "padded_size")
    )
    best = torch.from_numpy(found["scores"]).argsort(descending=True, stable=True)[:MOST_ON_A_PAGE]
    anchors = torch.from_numpy(found["anchors"].astype(np.int64))[best]  # (C,)
    boxes = decode_boxes(torch.from_numpy(found["offsets"])[best], model.anchors(padded)[anchors])
    boxes = scale_boxes(clip_boxes(boxes, seen), seen, (height, width))  # (C, 4)
    ends = found["anchors_per_level"].cumsum()
    return {
        "what": f"the best {len(best)} pairs of anchor and class before suppression, best first; "
        "boxes x1 y1 x2 y2 in pixels of the photograph; an anchor's place is among those of the "
        f"padded image, {padded[0]} × {padded[1]}",
        "picture": f"skimage.data.{name}",
        "width": width,
        "height": height,
        "classes": model.classes,
        "boxes": [[round(x, 1) for x in box] for box in boxes.tolist()],
        "scores": [round(s, 4) for s in found["scores"][best].tolist()],
        "labels": found["labels"][best].tolist(),
        "levels": (3 + np.searchsorted(ends, anchors.numpy(), side="right")).tolist(),
        "anchors": anchors.tolist(),
    }


@torch.no_grad()
def loss_by_answer(model: RetinaNet, voc: VOCDataset) -> dict[str, Any]:
    """The paper's Figure 4: which share of the loss do the easiest answers hold?

    An answer is one score. Foreground: of a positive anchor the score of its object's class.
    Background: each of the K scores of a background anchor. Ignored anchors are left out.

    Args:
        model: in evaluation mode.
        voc: pictures and truth.

    Returns:
        counts, and by group and γ the share of the loss at each of the `share` of the answers.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 5.1, "Analysis of the Focal Loss".
    """
    transform = EvalTransform(model.image_size)
    right: dict[str, list[Tensor]] = {"foreground": [], "background": []}  # logits of the truth
    for i in range(len(voc)):
        image, target = transform(*voc[i])
        padded = pad_images([image])
        logits = model(padded).class_logits[0]  # (N, K)
        anchors = model.anchors(picture_size(padded))
        match = match_targets(anchors, target["boxes"], target["difficult"])  # (N,)
        positive = match >= 0
        labels = target["labels"][match[positive]]  # (P,)
        right["foreground"].append(logits[positive, labels])
        right["background"].append(-logits[match == BACKGROUND].flatten())
    found: dict[str, Any] = {
        "what": "share of the loss that the easiest answers hold, at each share of the answers",
        "pictures": len(voc),
        "gammas": GAMMAS,
        "share": SHARES.tolist(),
    }
    for group, parts in right.items():
        # The loss falls with this logit, whatever γ: one order serves all curves.
        z = torch.cat(parts).sort(descending=True).values
        found[f"{group}_anchors"] = len(z) // (1 if group == "foreground" else model.num_classes)
        found[f"{group}_median_p_of_truth"] = round(z.median().sigmoid().item(), 4)
        for gamma in GAMMAS:
            loss = F.softplus(-z) * torch.exp(-gamma * F.softplus(z))
            total = F.pad(loss.double().cumsum(dim=0), (1, 0))  # of the first 0, 1, … answers
            at = torch.from_numpy(SHARES * len(z)).round().long()
            found[f"{group}_{gamma}"] = [round(x, 6) for x in (total[at] / total[-1]).tolist()]
    return found


def write(name: str, header: dict[str, Any], content: dict[str, Any]) -> None:
    """JSON with a line for each key, to be read by people too."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in (header | content).items()]
    (OUTPUT / name).write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="of a model trained on PASCAL VOC")
    parser.add_argument("--voc", help="folder that contains VOCdevkit, for the losses")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, photos = load_checkpoint(arguments.checkpoint), photographs()
    header = {"model": f"RetinaNet on ResNet-18, see {RESULTS}"} | provenance()
    OUTPUT.mkdir(exist_ok=True)

    np.savez_compressed(OUTPUT / "maps_chelsea.npz", **maps(model, photos["chelsea"]))
    for name in ("chelsea", "astronaut"):
        found = candidates(model, photos[name])
        np.savez_compressed(OUTPUT / f"candidates_{name}.npz", **found)
        write(f"candidates_{name}.json", header, for_a_page(model, name, found))
    best = {}
    for name, photo in photos.items():
        found = predict(model, photo, score_threshold=SHOWN)
        rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        best[name] = [[model.classes[k], round(s, 3), [round(x) for x in b]] for k, s, b in rows]
    what = f"after suppression: class, score, box, for scores above {SHOWN}; much of it is wrong"
    write("detections.json", header, {"what": what} | best)
    if arguments.voc:
        voc = VOCDataset(arguments.voc, split="val", classes=model.classes)
        write("loss_by_answer.json", header, loss_by_answer(model, voc))


if __name__ == "__main__":
    main()
