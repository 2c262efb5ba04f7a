"""torchvision's RetinaNet: its weights in and out, and its conventions.

torchvision places and rounds anchors differently, takes P6 from P5, forces matches, uses another
box loss and keeps more detections. Weights only give its numbers together with all of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models import detection
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet_edu.anchors import SCALES, STRIDES, AnchorGenerator
from retinanet_edu.backbone import BLOCKS, STAGES, ResNet, download_weights, read_state_dict
from retinanet_edu.coding import MAX_LOG_STRETCH
from retinanet_edu.data.loading import PAD_MULTIPLE
from retinanet_edu.data.transforms import MEAN, STD
from retinanet_edu.errors import CheckpointError
from retinanet_edu.model import RetinaNet, with_classes

# The parts of the network, ours and torchvision's. The layers of a part follow in the same order.
_PARTS = (
    ("backbone", "backbone.body"),
    ("fpn", "backbone.fpn"),
    ("classification_head", "head.classification_head"),
    ("box_head", "head.regression_head"),
)
_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)
_ANCHORS: dict = {"strides": STRIDES, "offset": 0, "rounded": True, "stride_from_grid": True}
_MAPS = {"layer2": "0", "layer3": "1", "layer4": "2"}  # C3, C4, C5
# torchvision's detectors trained on COCO: 36.4 AP, and 41.5 with group norm and GIoU.
COCO = {
    "coco": detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    "coco-v2": detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
}


def from_torchvision(model: TorchvisionRetinaNet, **settings: Any) -> RetinaNet:
    """Our model with the weights and the anchors of torchvision's.

    The rest of its conventions is in `criterion_settings` and `postprocess_settings`. Labels stay
    as they are: its `num_classes` logits are those of labels 0…num_classes−1.

    Args:
        model: on a ResNet-18 … 152, such as `retinanet_resnet50_fpn` or its v2. Batch norms and
            stages that are frozen there are frozen here.
        settings: keywords of `RetinaNet`: classes, and image_size if it is not to be its max_size.

    Returns:
        a model of its own, in the same mode; nothing is shared.

    Raises:
        ValueError: something that our model cannot represent, or another keyword; the message
            names it.

    Law:
        from_torchvision(m)(x) has the logits, offsets and anchors of m for x.
    """
    foreign = ", ".join(settings.keys() - {"classes", "image_size"})
    if foreign:
        raise ValueError(
            f"{foreign} cannot be chosen, since it is as torchvision's model has it; only classes "
            "and image_size can be given"
        )
    _require(isinstance(model, TorchvisionRetinaNet), "model", type(model), TorchvisionRetinaNet)
    trunk, head, transform = model.backbone, model.head, model.transform
    _require(isinstance(head, RetinaNetHead), "head", type(head), RetinaNetHead)
    _require(isinstance(trunk, BackboneWithFPN), "backbone", type(trunk), BackboneWithFPN)
    body, extra = trunk.body, trunk.fpn.extra_blocks
    _require(isinstance(extra, LastLevelP6P7), "extra levels", type(extra), LastLevelP6P7)
    _require([*body.return_layers] == [*_MAPS], "pyramid", [*body.return_layers], [*_MAPS])
    blocks = (type(body.layer1[0]), tuple(len(body[f"layer{i}"]) for i in range(1, 5)))
    depth_of: dict[Any, int] = {known: depth for depth, known in BLOCKS.items()}
    _require(blocks in depth_of, "backbone", blocks, f"ResNets of depth {[*BLOCKS]}")
    for coder in (model.box_coder, head.regression_head.box_coder):
        coding, plain = (*coder.weights, coder.bbox_xform_clip), (1, 1, 1, 1, MAX_LOG_STRETCH)
        _require(coding == plain, "weights and bound of the box coder", coding, plain)
    colours = (tuple(transform.image_mean), tuple(transform.image_std))
    _require(colours == (MEAN, STD), "mean and deviation of pictures", colours, (MEAN, STD))

    backbone = ResNet(depth_of[blocks])
    ours = RetinaNet(
        backbone,
        head.classification_head.num_classes,
        anchors=_our_anchors(model.anchor_generator),
        channels=trunk.out_channels,
        head_convs=len(head.classification_head.conv),
        group_norm=any(isinstance(layer, nn.GroupNorm) for layer in head.modules()),
        p6_from="P5" if extra.use_P5 else "C5",
        **{"image_size": transform.max_size} | settings,
    ).to(head.classification_head.cls_logits.weight)
    _copy(ours, model, to_ours=True)
    norms = (name for name, layer in body.named_modules() if isinstance(layer, FrozenBatchNorm2d))
    trained = [any(p.requires_grad for n in s for p in body[n].parameters()) for s in STAGES]
    backbone.freeze(tuple(norms), stages=[*trained, True].index(True))
    return ours.train(model.training)


def retinanet_coco(
    weights: str | Path = "coco",
    classes: Sequence[str] | None = None,
    *,
    frozen_stages: int = 2,
    **settings: Any,
) -> RetinaNet:
    """torchvision's RetinaNet on ResNet-50, trained on COCO, as it is or to learn other classes.

    Version 2 has group norm in its subnets, P6 from C5, and was trained with GIoU.

    Args:
        weights: "coco" or "coco-v2", which torchvision downloads, or the path of either file.
        classes: names of the classes to learn, for which the last classification layer starts
            anew; all else is kept. None keeps COCO's 91 logits, of which 11 have no class.
        frozen_stages: as in `retinanet_resnet`; all batch norms are frozen, as small batches
            would spoil them.
        settings: image_size; 1333 by default, torchvision's longest side.

    Returns:
        the model, in training mode.

    Raises:
        CheckpointError: the file is missing, damaged or of another network, or cannot be fetched.
    """
    name = str(weights)
    if name not in COCO and not Path(weights).is_file():
        raise CheckpointError(f"{weights}: no such file of COCO weights (or say {', '.join(COCO)})")
    state = dict(download_weights(COCO[name]) if name in COCO else read_state_dict(weights))
    is_v2 = "head.classification_head.conv.0.1.weight" in state  # a norm
    build = detection.retinanet_resnet50_fpn_v2 if is_v2 else detection.retinanet_resnet50_fpn
    categories = COCO["coco"].meta["categories"]
    theirs = build(weights=None, weights_backbone=None, num_classes=len(categories))
    # The first version was saved with frozen norms, which count no batches.
    counters = {n: t for n, t in theirs.state_dict().items() if n.endswith("num_batches_tracked")}
    try:
        theirs.load_state_dict(counters | state)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{weights}: not torchvision's RetinaNet of COCO ({why}); a model of other classes "
            "goes through from_torchvision"
        ) from error
    if not is_v2:
        overwrite_eps(theirs, 0.0)  # as torchvision does: that is what it was trained with
    ours = from_torchvision(theirs, classes=categories, **settings)
    backbone = ours.backbone
    assert isinstance(backbone, ResNet)
    norms = (name for name, layer in backbone.named_modules() if isinstance(layer, _NORMS))
    backbone.freeze(tuple(norms), frozen_stages)
    return ours if classes is None else with_classes(ours, classes)


def to_torchvision(model: RetinaNet, **settings: Any) -> TorchvisionRetinaNet:
    """torchvision's RetinaNet with the weights and the anchors of ours.

    Args:
        model: on a ResNet, with torchvision's anchors: AnchorGenerator(offset=0, rounded=True,
            stride_from_grid=True).
        settings: keywords of torchvision's RetinaNet, such as score_thresh. By default it scales to
            the same size, to a pixel, and pads alike; but it does not smooth before it shrinks, so
            a shrunken picture, and so its scores, differ from `predict`'s.

    Returns:
        a model of its own, in the same mode; nothing is shared.

    Raises:
        ValueError: a convention of this model that torchvision does not have.

    Law:
        to_torchvision(from_torchvision(m)) has the state dict of m.
    """
    backbone, anchors = model.backbone, model.anchor_generator
    channels, num_classes = model.fpn.channels, model.num_classes
    if not isinstance(backbone, ResNet) or backbone.width != 1:
        raise ValueError("torchvision's RetinaNet stands on a ResNet of width 1, this one does not")
    _require(_ANCHORS.items() <= anchors.settings.items(), "anchors", _ANCHORS, anchors.settings)
    neck = model.settings["neck"]
    _require(neck == "fpn", "neck", "fpn", neck)
    resnet = TorchvisionResNet(*BLOCKS[backbone.depth])
    extra = LastLevelP6P7(model.fpn.p6.in_channels, channels)
    extra.use_P5 = model.fpn.p6_from == "P5"
    trunk = BackboneWithFPN(resnet, dict(_MAPS), list(backbone.out_channels), channels, extra)
    for name in backbone.frozen_norms:
        norm = trunk.body.get_submodule(name)
        trunk.body.set_submodule(name, FrozenBatchNorm2d(norm.num_features))
    for name in chain(*STAGES[: backbone.frozen_stages]):
        trunk.body[name].requires_grad_(False)
    groups = partial(nn.GroupNorm, max(1, channels // 8)) if model.settings["group_norm"] else None
    head = RetinaNetHead(channels, anchors.anchors_per_cell, num_classes, groups)
    sides = tuple(tuple(int(torch.tensor(z * s)) for s in anchors.scales) for z in anchors.sizes)
    grid = TorchvisionAnchors(sides, (anchors.ratios,) * len(sides))
    size = model.image_size
    settings = {"min_size": size, "max_size": size, "size_divisible": PAD_MULTIPLE} | settings
    theirs = TorchvisionRetinaNet(trunk, num_classes, anchor_generator=grid, head=head, **settings)
    theirs.to(model.box_head.output.weight)
    _copy(model, theirs, to_ours=False)
    return theirs.train(model.training)


def criterion_settings(model: TorchvisionRetinaNet) -> dict[str, Any]:
    """The keywords with which `criterion` gives the losses of torchvision's model.

    Except for an object that no anchor overlaps: there, torchvision makes every anchor positive.

    Args:
        model: torchvision's.

    Returns:
        keywords of `criterion`.

    Raises:
        ValueError: its box loss is one that `criterion` does not know.
    """
    box_loss, known = model.head.regression_head._loss_type, ("l1", "smooth_l1", "giou")
    _require(box_loss in known, "box loss", box_loss, known)
    return {
        "positive": model.proposal_matcher.high_threshold,
        "negative": model.proposal_matcher.low_threshold,
        "force_match": model.proposal_matcher.allow_low_quality_matches,
        "train_difficult": True,
        "box_loss": box_loss,
        "normaliser": "image",
    }


def postprocess_settings(model: TorchvisionRetinaNet) -> dict[str, Any]:
    """The keywords with which `postprocess` gives the detections of torchvision's model.

    Args:
        model: torchvision's.

    Returns:
        keywords of `postprocess`.
    """
    return {
        "score_threshold": model.score_thresh,
        "top_k": model.topk_candidates,
        "iou_threshold": model.nms_thresh,
        "max_detections": model.detections_per_img,
    }


def _require(holds: bool, what: str, found: object, needed: object) -> None:
    if not holds:
        raise ValueError(f"{what} cannot be represented: torchvision's {found}, ours {needed}")


def _our_anchors(theirs: TorchvisionAnchors) -> AnchorGenerator:
    # torchvision lists every side, truncated; ours are one size a level times the same scales.
    sizes = [level[0] for level in theirs.sizes]
    for scales in (SCALES, [side / sizes[0] for side in theirs.sizes[0]]):
        ours = AnchorGenerator(sizes, scales, theirs.aspect_ratios[0], **_ANCHORS)
        cells = zip(sizes, theirs.cell_anchors, strict=True)
        if all(torch.equal(ours.cell_anchors(size), cell.float().cpu()) for size, cell in cells):
            return ours
    raise ValueError(f"anchor sides {theirs.sizes} are not one size a level times equal scales")


def _copy(ours: RetinaNet, theirs: TorchvisionRetinaNet, *, to_ours: bool) -> None:
    """All weights, and the eps of norms, which is 0 in torchvision's COCO weights."""
    for here, there in _PARTS:
        pairs = zip_longest(_layers(ours, here), _layers(theirs, there), fillvalue=nn.Identity())
        for i, (a, b) in enumerate(pairs):
            _require(_kind(a) == _kind(b), f"layer {i} of {there}", _kind(b), _kind(a))
            source, target = (b, a) if to_ours else (a, b)
            target.load_state_dict(source.state_dict())
            if isinstance(target, _NORMS):
                target.eps = source.eps


def _layers(model: nn.Module, part: str) -> list[nn.Module]:
    return [m for m in model.get_submodule(part).modules() if not list(m.children())]


def _kind(layer: nn.Module) -> str:
    """All in which two layers must agree before their weights: a frozen norm is a norm."""
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    shapes.pop("num_batches_tracked", None)
    return f"batch norm {shapes}" if isinstance(layer, _NORMS) else str(layer)
