"""What is compared: one generator a group, which makes its cases one at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Case
from pairs import (
    Pair,
    anchors_as_torchvisions,
    demo_pair,
    random_boxes,
    random_targets,
    realistic_logits,
    resnet_pair,
    torchvisions_anchors,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.io import write_jpeg
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, sigmoid_focal_loss

from retinanet_edu import detection, interop, losses
from retinanet_edu.boxes import is_on_cpu
from retinanet_edu.coding import decode_boxes, encode_boxes
from retinanet_edu.data.images import read_image
from retinanet_edu.data.transforms import TrainTransform
from retinanet_edu.detection import postprocess
from retinanet_edu.evaluation import evaluate_detections
from retinanet_edu.losses import criterion
from retinanet_edu.matching import match_anchors
from retinanet_edu.model import RetinaNet
from retinanet_edu.structures import Detections, Predictions
from retinanet_edu.training import fastest_memory_format, train

Cases = Iterator[Case]
NUM_CLASSES = 20


def close(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def same_detections(ours: list, theirs: list) -> None:
    """As many, with the same scores; of two that tie either may come first."""
    found = 0
    for one, other in zip(ours, theirs, strict=True):
        close(one.scores, other["scores"], 1e-3)
        close(one.boxes.sum(), other["boxes"].sum(), 1e-3)
        found += len(one)
    assert found > 0, "nothing was found, so nothing was compared"


def anchors(device: torch.device, quick: bool) -> Cases:
    """An image's anchors, as asked for again and again in training."""
    ours = anchors_as_torchvisions()
    theirs = torchvisions_anchors(ours)
    for size in (512,) if quick else (256, 512, 800):
        images = ImageList(torch.zeros(1, 3, size, size, device=device), [(size, size)])
        maps = [torch.zeros(1, 1, *grid, device=device) for grid in ours.grid_sizes((size, size))]
        yield Case(
            "anchors",
            {"size": size},
            lambda size=size: ours((size, size), device),
            lambda images=images, maps=maps: theirs(images, maps)[0],
            close,
        )


def matching(device: torch.device, quick: bool) -> Cases:
    """With forced matches, as torchvision does it."""
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    grid = (
        [(512, 5, 4), (512, 50, 4)]
        if quick
        else [
            (size, objects, 1 if objects == 500 else 4)
            for size in (256, 512, 800)
            for objects in (5, 50, 500)
        ]
    )
    for size, objects, batch in grid:
        given = anchors_as_torchvisions()((size, size), device)
        boxes = random_boxes(batch, objects, size).to(device)
        yield Case(
            "matching",
            {"objects": objects, "size": size, "batch": batch},
            lambda a=given, b=boxes: match_anchors(a, b, force_match=True),
            lambda a=given, b=boxes: torch.stack([matcher(box_iou(one, a)) for one in b]),
            lambda x, y: close(x, y),
            memory=True,
        )


def coding(device: torch.device, quick: bool) -> Cases:
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    for count in (1000,) if quick else (1000, 50_000):
        a = random_boxes(1, count, 512, seed=0)[0].to(device)
        b = random_boxes(1, count, 512, seed=1)[0].to(device)
        d = encode_boxes(b, a)
        yield Case(
            "coding",
            {"direction": "encode", "boxes": count},
            lambda a=a, b=b: encode_boxes(b, a),
            lambda a=a, b=b: coder.encode_single(b, a),
            close,
        )
        yield Case(
            "coding",
            {"direction": "decode", "boxes": count},
            lambda a=a, d=d: decode_boxes(d, a),
            lambda a=a, d=d: coder.decode_single(d, a),
            lambda x, y: close(x, y, 1e-3),
        )


def focal(device: torch.device, quick: bool) -> Cases:
    """Focal loss of a batch that is matched already, forward and backward."""
    batch = 2
    for classes, count in ((20, 49104),) if quick else ((20, 49104), (80, 49104), (1000, 12276)):
        g = torch.Generator().manual_seed(0)
        logits = (torch.randn(batch, count, classes, generator=g) - 4).to(device).requires_grad_()
        match = torch.full((batch, count), -1)
        match[:, :100], match[:, 100:200] = 0, -2
        match = match[:, torch.randperm(count, generator=g)].to(device)
        weights = (match != -2) / (100.0 * batch)

        def ours(logits=logits, match=match, weights=weights) -> Tensor:
            if is_on_cpu(logits):
                image, anchor = (match >= 0).nonzero(as_tuple=True)
                truth = (image * logits.shape[1] + anchor) * logits.shape[2] + 3
                own = weights[image, anchor]
                loss = losses._FocalSum.apply(logits, weights, truth, own, 0.25, 2.0)
            else:
                label = torch.where(match >= 0, 3, -1)[..., None]
                is_object = label == torch.arange(logits.shape[2], device=logits.device)
                terms = losses._focal_terms(logits, is_object, 0.25, 2.0)
                loss = (terms * weights[..., None]).sum()
            return torch.autograd.grad(loss, logits)[0]

        def theirs(logits=logits, match=match) -> Tensor:
            total = []
            for row, matched in zip(logits, match, strict=True):
                target = torch.zeros_like(row)
                target[matched >= 0, 3] = 1.0
                valid = matched != -2
                loss = sigmoid_focal_loss(row[valid], target[valid], reduction="sum")
                total.append(loss / max(1, (matched >= 0).sum()))
            return torch.autograd.grad(sum(total) / len(total), logits)[0]

        settings = {"classes": classes, "anchors": count, "batch": batch}
        settings["logits_bytes"] = 4 * logits.numel()
        yield Case(
            "focal loss", settings, ours, theirs, lambda x, y: close(x, y, 1e-6), memory=True
        )


def matching_and_loss(device: torch.device, quick: bool) -> Cases:
    """All between the network and its gradient."""
    theirs = resnet_pair(18).theirs
    settings = interop.criterion_settings(theirs)
    for batch, size in ((4, 256),) if quick else ((1, 512), (4, 512), (16, 256)):
        given = anchors_as_torchvisions()((size, size), device)
        targets, listed = random_targets(batch, 10, size, NUM_CLASSES, device)
        g = torch.Generator().manual_seed(0)
        logits = (torch.randn(batch, len(given), NUM_CLASSES, generator=g) - 4).to(device)
        deltas = torch.randn(batch, len(given), 4, generator=g).to(device) * 0.1
        leaves = (logits.requires_grad_(), deltas.requires_grad_())

        def ours(leaves=leaves, given=given, targets=targets) -> tuple[Tensor, ...]:
            loss = criterion(Predictions(*leaves, (len(given),)), given, targets, **settings).total
            return torch.autograd.grad(loss, leaves)

        def others(leaves=leaves, given=given, listed=listed) -> tuple[Tensor, ...]:
            outputs = {"cls_logits": leaves[0], "bbox_regression": leaves[1]}
            parts = theirs.compute_loss(listed, outputs, [given] * len(listed))
            return torch.autograd.grad(parts["classification"] + parts["bbox_regression"], leaves)

        yield Case(
            "matching + loss",
            {"batch": batch, "size": size, "objects": 10},
            ours,
            others,
            lambda x, y: close(x, y, 1e-5),
            memory=True,
        )


def post(device: torch.device, quick: bool) -> Cases:
    """Scores of a trained network, and the hard case in which most exceed the threshold."""
    model = resnet_pair(18).theirs
    settings = interop.postprocess_settings(model)
    generator, size = anchors_as_torchvisions(), 512
    given = generator((size, size), device)
    levels = [9 * rows * columns for rows, columns in generator.grid_sizes((size, size))]
    for kind in ("realistic", "hard"):
        for classes in (20,) if quick else (20, 80):
            for batch in (1,) if quick else (1, 8):
                g = torch.Generator().manual_seed(0)
                logits = realistic_logits(batch, classes, given, size)
                if kind == "hard":
                    logits = (torch.randn(logits.shape, generator=g) - 1).to(device)
                deltas = torch.randn(batch, len(given), 4, generator=g).to(device) * 0.3
                sizes = [(size, size)] * batch

                def ours(logits=logits, deltas=deltas, sizes=sizes) -> list:
                    predictions = Predictions(logits, deltas, tuple(levels))
                    return postprocess(predictions, given, sizes, **settings)

                def theirs(logits=logits, deltas=deltas, sizes=sizes) -> list:
                    outputs = {
                        "cls_logits": [*logits.split(levels, 1)],
                        "bbox_regression": [*deltas.split(levels, 1)],
                    }
                    with torch.no_grad():
                        each = [[*given.split(levels)]] * len(sizes)
                        return model.postprocess_detections(outputs, each, sizes)

                case = {"scores": kind, "classes": classes, "batch": batch, "size": size}
                yield Case("postprocess", case, ours, theirs, same_detections)


def _loud(pair: Pair, device: torch.device) -> Pair:
    """With scores on both sides of the threshold: those of a new network are all the same."""
    # The pyramid of a new network is quiet, too.
    for subnet, spread in ((pair.ours.classification_head, 0.2), (pair.ours.box_head, 0.04)):
        for layer in subnet.tower.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(subnet.output.weight, std=spread)
    interop._copy(pair.ours, pair.theirs, to_ours=False)
    return Pair(pair.ours.to(device).eval(), pair.theirs.to(device).eval())


def _images(batch: int, size: int, device: torch.device) -> Tensor:
    g = torch.Generator().manual_seed(batch + size)
    return torch.rand(batch, 3, size, size, generator=g).to(device)


def _inference(
    group: str,
    pair: Pair,
    fast: RetinaNet,
    network: Callable,
    batch: int,
    size: int,
    settings: dict,
    autocast: Callable = nullcontext,
) -> Case:
    images = _images(batch, size, fast.device)
    mean, deviation = (
        torch.tensor(values, device=fast.device)[:, None, None]
        for values in (pair.theirs.transform.image_mean, pair.theirs.transform.image_std)
    )
    keywords = interop.postprocess_settings(pair.theirs)

    @torch.inference_mode()
    def ours() -> list:
        seen = ((images - mean) / deviation).to(memory_format=torch.channels_last)
        with autocast():
            predictions = network(seen)
        return postprocess(
            predictions, fast.anchors((size, size)), [(size, size)] * batch, **keywords
        )

    @torch.inference_mode()
    def theirs() -> list:
        with autocast():
            return pair.theirs([*images])

    @torch.inference_mode()
    def check(_: list, expected: list) -> None:
        """Bit for bit before norms are folded; that moves logits in the sixth digit, and where two
        scores all but tie another box may survive.
        """
        seen = (images - mean) / deviation
        plain, quick = pair.ours(seen), network(seen.to(memory_format=torch.channels_last))
        anchors = fast.anchors((size, size))
        same_detections(postprocess(plain, anchors, [(size, size)] * batch, **keywords), expected)
        close(quick.class_logits, plain.class_logits, 1e-3)
        close(quick.box_deltas, plain.box_deltas, 1e-3)

    # TF32 and bfloat16 are not that exact.
    checked = check if is_on_cpu(images) else None
    return Case(group, {**settings, "size": size, "batch": batch}, ours, theirs, checked, least=3)


def inference(device: torch.device, quick: bool) -> Cases:
    """From normalised images to detections, `for_inference` against torchvision's own forward."""
    # Eight large pictures take a minute of two cores for each model, so they are tried with one.
    grid = [(1, 512)] if quick else [(1, 320), (1, 512), (1, 800), (8, 320), (8, 512)]
    for depth in (18,) if quick else (50, 18):
        pair = _loud(resnet_pair(depth), device)
        fast = pair.ours.for_inference()
        for batch, size in [*grid, (8, 800)] if depth == 18 and not quick else grid:
            yield _inference("inference", pair, fast, fast, batch, size, {"ResNet": depth})
        if device.type == "cuda":
            pair.theirs.to(memory_format=torch.channels_last)
            half = lambda: torch.autocast("cuda", torch.bfloat16)  # noqa: E731
            settings = {"ResNet": depth, "precision": "bf16"}
            yield _inference("inference", pair, fast, fast, 8, 512, settings, half)


def compiled(device: torch.device, quick: bool) -> Cases:
    """Ours compiled, against torchvision's as most use it, and against its two parts compiled."""
    for depth in () if quick else (50, 18):
        pair = _loud(resnet_pair(depth), device)
        fast = pair.ours.for_inference()
        network = torch.compile(fast)
        batch = 1 if device.type == "cpu" else 8
        for other in ("eager", "compiled"):
            if other == "compiled":
                pair.theirs.backbone.compile()
                pair.theirs.head.compile()
            settings = {"ResNet": depth, "torchvision": other}
            yield _inference("compiled", pair, fast, network, batch, 512, settings)
        torch.compiler.reset()


def graph(device: torch.device, quick: bool) -> Cases:
    """A GPU's launches recorded once: network, top-k and decoding; suppression comes after it.

    On a CPU nothing is recorded, so it is only tried: the same function must give the same.
    """
    if device.type == "cpu" and not quick:
        return
    depth, size = (18, 128) if device.type == "cpu" else (50, 512)
    pair = _loud(resnet_pair(depth), device)
    fast = pair.ours.for_inference()
    images = _images(1, size, device)
    mean, deviation = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (pair.theirs.transform.image_mean, pair.theirs.transform.image_std)
    )
    anchors, keywords = fast.anchors((size, size)), interop.postprocess_settings(pair.theirs)

    def network() -> tuple[Any, Tensor]:
        seen = ((images - mean) / deviation).to(memory_format=torch.channels_last)
        predictions = fast(seen)
        found = detection._candidates(
            predictions.class_logits,
            predictions.anchors_per_level,
            keywords["score_threshold"],
            keywords["top_k"],
        )
        return found, predictions.box_deltas

    with torch.inference_mode():
        replay = recorded(network, device)

    @torch.inference_mode()
    def ours() -> list:
        found, deltas = replay()
        limits = keywords["iou_threshold"], keywords["max_detections"]
        return detection._suppress(found, deltas, anchors, [(size, size)], *limits)

    @torch.inference_mode()
    def theirs() -> list:
        return pair.theirs([*images])

    def check(mine: list, others: list) -> None:
        close(mine[0].scores, others[0]["scores"], 1e-2)

    yield Case(
        "recorded launches", {"ResNet": depth, "size": size, "batch": 1}, ours, theirs, check
    )


def recorded(function: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The function as one launch; it must read and write the same memory each time."""
    if device.type != "cuda":
        return function
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is chosen and allocated at the first call must not be recorded
            function()
    torch.cuda.current_stream().wait_stream(stream)
    whole = torch.cuda.CUDAGraph()
    with torch.cuda.graph(whole):
        result = function()

    def replay() -> Any:
        whole.replay()
        return result

    return replay


def training(device: torch.device, quick: bool) -> Cases:
    """Forward, loss, backward and a step of SGD at rate 0, in the memory format of `train`."""
    grid: list[tuple[str, int, int, str]] = [("demo", 8, 128, "plain")]
    if not quick:
        grid += [
            ("ResNet-18", 4, 256, "plain"),
            ("ResNet-18", 8, 256, "plain"),
            ("ResNet-18", 16, 256, "plain"),
            ("ResNet-18", 4, 512, "plain"),
            ("ResNet-18", 4, 800, "plain"),
            ("ResNet-50", 4, 512, "plain"),
        ]
    if device.type == "cuda":  # on a CPU bfloat16 is slow, and compiling takes longer than it saves
        grid += [("ResNet-50", 16, 512, "bf16"), ("ResNet-50", 16, 512, "bf16, compiled")]
    for name, batch, size, form in grid:
        pair = demo_pair() if name == "demo" else resnet_pair(int(name[7:]))
        ours_model, theirs_model = (model.to(device).train() for model in pair)
        if name == "demo":
            # A norm in training doubles rounding, so equal results are looked for in evaluation.
            ours_model.backbone.eval(), theirs_model.backbone.eval()
        ours_model.to(memory_format=fastest_memory_format(ours_model, device, size))
        keywords = interop.criterion_settings(theirs_model)
        images = _images(batch, size, device)
        classes = ours_model.num_classes
        targets, listed = random_targets(batch, 5, size, classes, device)
        mean, deviation = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (theirs_model.transform.image_mean, theirs_model.transform.image_std)
        )
        descents = [torch.optim.SGD(m.parameters(), lr=0.0) for m in (ours_model, theirs_model)]
        network = torch.compile(ours_model) if "compiled" in form else ours_model
        half = partial(torch.autocast, device.type, torch.bfloat16, enabled="bf16" in form)

        def ours(m=ours_model, n=network, d=descents[0], x=images, t=targets, k=keywords, s=size,
                 mean=mean, deviation=deviation, half=half) -> Tensor:  # fmt: skip
            with half():
                loss = criterion(n((x - mean) / deviation), m.anchors((s, s)), t, **k).total
            d.zero_grad()
            loss.backward()
            d.step()
            return loss.detach()

        def theirs(m=theirs_model, d=descents[1], x=images, t=listed, half=half) -> Tensor:
            with half():
                loss = sum(m([*x], t).values())
            d.zero_grad()
            loss.backward()
            d.step()
            return loss.detach()

        settings = {"model": name, "size": size, "batch": batch}
        if form != "plain":
            settings["form"] = form
        if name == "demo":
            close(ours(), theirs(), 1e-4)
            ours_model.train(), theirs_model.train()
            yield Case("training step", settings, ours, theirs)
        else:
            checked = close if device.type == "cpu" else partial(close, tolerance=0.05)
            yield Case("training step", settings, ours, theirs, checked, least=3)


class Photographs:
    """JPEG files of a camera's size with objects: read, decoded and augmented like any others."""

    classes = tuple(str(label) for label in range(NUM_CLASSES))

    def __init__(self, folder: Path, count: int) -> None:
        g = torch.Generator().manual_seed(0)
        self.paths = [folder / f"{number}.jpg" for number in range(count)]
        for path in self.paths:
            coarse = torch.rand(1, 3, 24, 32, generator=g)
            picture = nn.functional.interpolate(coarse, (375, 500), mode="bicubic")[0].clamp(0, 1)
            write_jpeg((255 * picture).byte(), str(path), quality=90)
        self.boxes = random_boxes(count, 3, 375)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        target = {"boxes": self.boxes[index], "labels": torch.arange(3) + index % 17}
        target["difficult"] = torch.zeros(3, dtype=torch.bool)
        return read_image(self.paths[index]), target


def whole_run(device: torch.device, quick: bool) -> Cases:
    """An epoch from files to a saved model, against a loop as short as torchvision's users write.

    Both read, augment, shuffle and step alike; ours checks every target and every gradient, too.
    """
    if quick:
        return
    count, batch, size = 32, 8, 256
    with TemporaryDirectory() as folder:
        data = Photographs(Path(folder), count)
        transform = TrainTransform(size)
        pair = resnet_pair(18)
        ours_model, theirs_model = (model.to(device).train() for model in pair)
        theirs_model.transform.image_mean, theirs_model.transform.image_std = [0, 0, 0], [1, 1, 1]

        def ours() -> None:
            with TemporaryDirectory() as output:
                train(ours_model, data, output=output, epochs=1, batch_size=batch, progress=False,
                      learning_rate=1e-5, transform=transform, device=device)  # fmt: skip

        def collate(samples: list) -> tuple[list, list]:
            return tuple(zip(*(transform(*sample) for sample in samples), strict=True))  # type: ignore

        def theirs() -> None:
            loader = DataLoader(data, batch, shuffle=True, collate_fn=collate)  # type: ignore
            trained = [p for p in theirs_model.parameters() if p.requires_grad]
            descent = torch.optim.AdamW(trained, lr=1e-5, fused=True)
            for images, targets in loader:
                images = [image.to(device) for image in images]
                targets = [{n: t[n].to(device) for n in ("boxes", "labels")} for t in targets]
                loss = sum(theirs_model(images, targets).values())
                descent.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 10.0)
                descent.step()
            with TemporaryDirectory() as output:
                state = {"model": theirs_model.state_dict(), "optimizer": descent.state_dict()}
                torch.save(state, Path(output) / "last.pt")

        settings = {"model": "ResNet-18", "size": size, "batch": batch, "images": count}
        yield Case("whole run", settings, ours, theirs, least=4)


def evaluation(device: torch.device, quick: bool) -> Cases:
    """All of our numbers, VOC's and COCO's and curves, against pycocotools' twelve alone."""
    images, each = (100, 50) if quick else (500, 100)
    g = torch.Generator().manual_seed(0)
    truths, found, rows, results = [], [], [], []
    for image in range(images):
        boxes = random_boxes(1, 5, 512, seed=image)[0]
        labels = torch.randint(0, NUM_CLASSES, (5,), generator=g)
        copies = torch.arange(each) % 5
        guesses = boxes[copies] + 8 * torch.randn(each, 4, generator=g)
        guesses[:, 2:] = torch.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = torch.rand(each, generator=g).sort(descending=True).values
        truths.append({"boxes": boxes, "labels": labels, "difficult": torch.zeros(5).bool()})
        found.append(Detections(guesses, scores, labels[copies]))
        for number, (box, label) in enumerate(zip(_xywh(boxes), labels.tolist(), strict=True)):
            rows.append({"id": 5 * image + number + 1, "image_id": image, "category_id": label,
                         "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        columns = zip(_xywh(guesses), labels[copies].tolist(), scores.tolist(), strict=True)
        results += [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for box, label, score in columns
        ]
    names = [{"id": label, "name": str(label)} for label in range(NUM_CLASSES)]
    listed = [{"id": image, "width": 512, "height": 512} for image in range(images)]
    classes = [str(label) for label in range(NUM_CLASSES)]

    def ours() -> float:
        return evaluate_detections(found, truths, classes).mAP

    def theirs() -> float:
        with redirect_stdout(StringIO()):
            truth = COCO()
            truth.dataset = {"images": listed, "annotations": rows, "categories": names}
            truth.createIndex()
            run = COCOeval(truth, truth.loadRes([dict(row) for row in results]), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return float(run.stats[0])

    yield Case("evaluation", {"images": images, "detections": images * each}, ours, theirs, close)


def _xywh(boxes: Tensor) -> list[list[float]]:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()


def startup(device: torch.device, quick: bool) -> Cases:
    """`retinanet-edu --help` against the import that any program of torchvision's begins with."""
    if quick:
        return

    def run(*command: str) -> Callable[[], None]:
        return lambda: (
            subprocess.run([sys.executable, *command], check=True, capture_output=True) and None
        )

    yield Case(
        "start-up",
        {},
        run("-c", "from retinanet_edu.cli import main; main(['--help'])"),
        run("-c", "from torchvision.models.detection import retinanet_resnet50_fpn"),
        least=4,
    )


CASES: dict[str, Callable[[torch.device, bool], Cases]] = {
    "anchors": anchors,
    "matching": matching,
    "coding": coding,
    "focal": focal,
    "matching-and-loss": matching_and_loss,
    "postprocess": post,
    "inference": inference,
    "compiled": compiled,
    "graph": graph,
    "training": training,
    "whole-run": whole_run,
    "evaluation": evaluation,
    "start-up": startup,
}
