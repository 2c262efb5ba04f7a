"""The first loss: what the untrained network must cost, computed from the matches alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.coding import encode_boxes
from retinanet_edu.data.doctor.findings import Finding, Table
from retinanet_edu.data.doctor.reach import scale_objects
from retinanet_edu.data.doctor.survey import Survey
from retinanet_edu.heads import PRIOR
from retinanet_edu.losses import ALPHA, GAMMA, smooth_l1_loss
from retinanet_edu.matching import IGNORED, match_targets

_MOST = 500  # images, spread evenly, whose anchors are matched
_CROWD = 1000  # objects; a picture with more takes too long to match


class FirstLoss(NamedTuple):
    """What a model costs before its first step.

    Attributes:
        classification: focal loss where every score is π.
        box: smooth L1 where every offset is 0.
        positives: positive anchors an image.
        ignored: ignored anchors an image.
        anchors: N, all anchors an image.
        images: on which it was computed.
    """

    classification: float
    box: float
    positives: float
    ignored: float
    anchors: float
    images: int

    @property
    def total(self) -> float:
        """The sum of both, λ = 1."""
        return self.classification + self.box


def expected_first_loss(
    survey: Survey,
    image_size: int,
    anchors: AnchorGenerator,
    num_classes: int,
    prior: float = PRIOR,
) -> FirstLoss | None:
    """The mean loss of an untrained model over the images to train on.

    Its last layers have weights near 0. So each score is π and each offset 0, and the loss
    depends on how many anchors are positive and ignored, and where.

    Args:
        survey: of the data set.
        image_size: longer side of the pictures, in pixels; each is padded as a batch is.
        anchors: of the model.
        num_classes: K, how many there are.
        prior: π.

    Returns:
        `FirstLoss`, or None where no picture can be used.

    Law:
        `criterion` of predictions whose logits are all ln(π / (1 − π)) and whose deltas are 0.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4.1, "Initialization".
    """
    matches = match_images(survey, image_size, anchors)
    return loss_of(matches, num_classes, prior) if matches else None


class Match(NamedTuple):
    """What an untrained network is asked of one image.

    Attributes:
        positives: so many anchors find an object.
        ignored: so many are asked nothing.
        anchors: N, all of them.
        box: smooth L1 of the positive ones together, where every offset is 0.
    """

    positives: int
    ignored: int
    anchors: int
    box: float


def match_images(survey: Survey, image_size: int, anchors: AnchorGenerator) -> list[Match]:
    """Match the images to train on, or some hundreds of them.

    Args:
        survey, image_size, anchors: as of `expected_first_loss`.

    Returns:
        one `Match` an image.
    """
    known = np.isfinite(survey.frames).all(axis=1) & (survey.frames > 0).all(axis=1)
    is_crowd = np.bincount(survey.image, minlength=len(known)) > _CROWD
    images = np.flatnonzero(known & ~survey.is_validation & ~is_crowd)
    images = images[:: -(-len(images) // _MOST) or 1]
    sound = survey.is_sound
    matches = []
    starts = np.searchsorted(survey.image, images)
    for image, start in zip(images.tolist(), starts.tolist()):
        stop = int(np.searchsorted(survey.image, image, side="right"))
        mine = np.arange(start, stop)[sound[start:stop]]
        frame = np.broadcast_to(survey.frames[image], (max(1, len(mine)), 2))
        some = scale_objects(survey.boxes[mine], frame[: len(mine)], image_size)
        blank = scale_objects(np.zeros((1, 4)), frame[:1], image_size)
        height, width = blank.canvas[0].int().tolist()
        all_anchors = anchors((height, width))
        difficult = torch.from_numpy(survey.difficult[mine])
        match = match_targets(all_anchors, some.boxes, difficult)  # (N,)
        at = (match >= 0).nonzero()[:, 0]
        offsets = encode_boxes(some.boxes[match[at]], all_anchors[at])
        box = float(smooth_l1_loss(torch.zeros_like(offsets), offsets))
        matches.append(Match(len(at), int((match == IGNORED).sum()), len(match), box))
    return matches


def loss_of(matches: Sequence[Match], num_classes: int, prior: float = PRIOR) -> FirstLoss:
    """The mean loss where every score is the prior.

    Args:
        matches: of at least one image.
        num_classes, prior: as of `expected_first_loss`.

    Returns:
        `FirstLoss`.
    """
    off = (1 - ALPHA) * prior**GAMMA * -math.log1p(-prior)  # of a logit that should be 0
    on = ALPHA * (1 - prior) ** GAMMA * -math.log(prior)  # of one that should be 1
    rows = []
    for one in matches:
        count = max(1, one.positives)
        background = (one.anchors - one.ignored) * num_classes - one.positives
        cost = (background * off + one.positives * on) / count
        rows.append((cost, one.box / count, one.positives, one.ignored, one.anchors))
    classification, box, positives, ignored, every = np.mean(rows, axis=0).tolist()
    return FirstLoss(classification, box, positives, ignored, every, len(rows))


def note_first_loss(
    survey: Survey, image_size: int, anchors: AnchorGenerator, num_classes: int
) -> Iterator[Finding]:
    """The first loss, to compare with what `train` prints.

    Args:
        survey: of the data set.
        image_size, anchors, num_classes: as of `expected_first_loss`.

    Returns:
        a finding "first-loss".
    """
    if num_classes < 1:
        return
    matches = match_images(survey, image_size, anchors)
    if not matches:
        return
    loss, without = (loss_of(matches, num_classes, prior) for prior in (PRIOR, 0.5))
    rows = [
        ("classification", round(loss.classification, 3)),
        ("box", round(loss.box, 3)),
        ("total", round(loss.total, 3)),
        ("classification without the prior, all scores ½", round(without.classification, 1)),
        ("positive anchors an image", round(loss.positives, 1)),
        ("ignored anchors an image", round(loss.ignored, 1)),
        ("anchors an image", round(loss.anchors)),
    ]
    yield Finding(
        "note", "first-loss",
        f"an untrained model of {num_classes} classes costs {loss.total:.2f} in the first steps: "
        f"{loss.classification:.2f} for the classes and {loss.box:.2f} for the boxes, at "
        f"{image_size} pixels and π = {PRIOR}",
        "compare: a first loss ten times as high has lost the prior of the last bias, and one "
        "near 0 has lost the boxes. Random crops and scales move it a little.",
        loss.images,
        harm=0.1,
        tables=[Table(f"means over {loss.images} images", ("", "expected"), rows)],
    )  # fmt: skip
