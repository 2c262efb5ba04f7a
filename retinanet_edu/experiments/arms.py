"""What is trained: the baseline, and arms that differ from it in one thing each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retinanet_edu.experiments.variants import (
    ClasswiseRetinaNet,
    classwise_criterion,
    criterion_per_anchor,
    ohem_criterion,
    with_level_subnets,
)
from retinanet_edu.losses import Losses, criterion
from retinanet_edu.model import RetinaNet

BASELINE = "baseline"


@dataclass(frozen=True)
class Arm:
    """One way to train a RetinaNet.

    Attributes:
        what: it differs in, in words.
        model: keywords of the model that are others.
        anchors: keywords of `AnchorGenerator` that are others.
        loss_settings: keywords of `loss` that are others.
        loss: what a batch costs.
        rebuild: what makes the arm's model of the usual one.
        corrupted: share of the training boxes that are wrong.
    """

    what: str
    model: Mapping[str, Any] = field(default_factory=dict)
    anchors: Mapping[str, Any] = field(default_factory=dict)
    loss_settings: Mapping[str, Any] = field(default_factory=dict)
    loss: Callable[..., Losses] = criterion
    rebuild: Callable[[RetinaNet], RetinaNet] | None = None
    corrupted: float = 0.0

    def settings(self) -> dict[str, Any]:
        """What differs from the baseline, ready for JSON."""
        changed: dict[str, Any] = {
            name: dict(value)
            for name in ("model", "anchors", "loss_settings")
            if (value := getattr(self, name))
        }
        if self.loss is not criterion:
            changed["loss"] = self.loss.__name__
        if self.rebuild is not None:
            changed["rebuild"] = self.rebuild.__name__
        if self.corrupted:
            changed["corrupted"] = self.corrupted
        return changed


def _neck(name: str, what: str) -> Arm:
    return Arm(what, model={"neck": name})


def _focal(alpha: float, gamma: float, what: str = "") -> Arm:
    return Arm(
        what or f"α = {alpha:g}, γ = {gamma:g}", loss_settings={"alpha": alpha, "gamma": gamma}
    )


def _thresholds(positive: float, negative: float) -> Arm:
    limits = {"positive": positive, "negative": negative}
    return Arm(f"positive from {positive:g}, background below {negative:g}", loss_settings=limits)


_ONE_SCALE, _ONE_RATIO = {"scales": (1.0,)}, {"ratios": (1.0,)}
# Offsets are small numbers, so that a parabola up to β = 100 is L2 for all of them. Smooth L1
# divides by β: the weight takes that back. L1 and GIoU are not small, and need no weight.
_BOX_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "l1": ("L1", {"box_loss": "l1", "box_loss_weight": 1.0}),
    "l2": ("L2", {"beta": 100.0, "box_loss_weight": 500.0}),
    "giou": ("GIoU", {"box_loss": "giou", "box_loss_weight": 1.0}),
}
CORRUPTED = 0.1

ARMS: dict[str, Arm] = {
    BASELINE: Arm("RetinaNet as the book builds it"),
    "single": _neck("single", "all levels from C5 alone"),
    "ssd": _neck("ssd", "SSD's pyramid: the backbone's own maps"),
    "lateral": _neck("lateral", "lateral connections, no top-down pathway"),
    "top-down": _neck("top-down", "top-down pathway, no lateral connections"),
    "unshared": Arm("a subnet of its own for each level", rebuild=with_level_subnets),
    "classwise": Arm("boxes for each class", rebuild=ClasswiseRetinaNet, loss=classwise_criterion),
    "ce": _focal(0.5, 0.0, "cross entropy (α = 0.5, γ = 0)"),
    "ce-alpha": _focal(0.75, 0.0, "α-balanced cross entropy (α = 0.75, γ = 0)"),
    "ohem": Arm("three of the hardest background anchors for each positive", loss=ohem_criterion),
    "alpha-75": _focal(0.75, 2.0),
    "gamma-5": _focal(0.25, 5.0),
    "even": Arm("π = 0.5: no prior", model={"prior": 0.5}),
    "anchors-1x1": Arm("one scale, one ratio", anchors=_ONE_SCALE | _ONE_RATIO),
    "anchors-1x3": Arm("one scale, three ratios", anchors=_ONE_SCALE),
    "anchors-3x1": Arm("three scales, one ratio", anchors=_ONE_RATIO),
    "match-50-50": _thresholds(0.5, 0.5),
    "match-70-30": _thresholds(0.7, 0.3),
    "match-60-50": _thresholds(0.6, 0.5),
    "forced": Arm("forced matches", loss_settings={"force_match": True}),
    **{name: Arm(what, loss_settings=keys) for name, (what, keys) in _BOX_LOSSES.items()},
    "smooth-l1-wrong": Arm("smooth L1, a tenth of the boxes wrong", corrupted=CORRUPTED),
    **{
        f"{name}-wrong": Arm(
            f"{what}, a tenth of the boxes wrong", loss_settings=keys, corrupted=CORRUPTED
        )
        for name, (what, keys) in _BOX_LOSSES.items()
    },
    "per-batch": Arm("divided by the batch's positives", loss_settings={"normaliser": "batch"}),
    "per-anchor": Arm("divided by all anchors", loss=criterion_per_anchor),
    "resnet34": Arm("ResNet-34", model={"depth": 34}),
    "image-pyramid": _neck("image-pyramid", "the backbone on the picture at five scales"),
}
