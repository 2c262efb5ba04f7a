"""losses: sums done on paper, torch's and torchvision's own losses, and where gradients flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import count_operations
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from retinanet_edu import losses
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.losses import criterion, focal_loss, smooth_l1_loss
from retinanet_edu.structures import Predictions, Targets

pytestmark = pytest.mark.filterwarnings("error")
in_both_forms = pytest.mark.usefixtures("form")

HALF = [torch.float16, torch.bfloat16]
BOX_LOSSES = ["smooth_l1", "l1", "giou"]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def focal_by_hand(p: float, target: int, alpha: float = 0.25, gamma: float = 2) -> float:
    """The article's eq. 8, of one probability."""
    if target:
        return -alpha * (1 - p) ** gamma * math.log(p)
    return -(1 - alpha) * p**gamma * math.log(1 - p)


def random_logits(*shape: int, seed: int = 0, spread: float = 3) -> tuple[Tensor, Tensor]:
    """Logits in float64 and ones and zeros for them."""
    g = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(shape, generator=g, dtype=torch.float64)
    return logits, (torch.rand(shape, generator=g) < 0.3).double()


def backward(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    """Gradients, every one of which must exist and be finite."""
    loss.backward()
    gradients = [leaf.grad for leaf in leaves]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    return [gradient for gradient in gradients if gradient is not None]


# --- focal loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "target", "loss"),
    [
        (0.5, 1, 0.25 * 0.25 * 0.693147),
        (0.5, 0, 0.75 * 0.25 * 0.693147),
        (0.9, 1, 0.25 * 0.01 * 0.105361),
        (0.9, 0, 0.75 * 0.81 * 2.302585),
        (0.01, 1, 1.12838),  # what each positive adds at the start
        (0.01, 0, 0.75 * 1e-4 * 0.0100503),
    ],
)
def test_focal_loss_of_one_number_by_hand(p: float, target: int, loss: float) -> None:
    value = focal_loss(torch.tensor([[logit(p)]]), torch.tensor([[float(target)]]))
    assert value.item() == pytest.approx(loss, rel=1e-5)
    assert value.item() == pytest.approx(focal_by_hand(p, target), rel=1e-5)


@pytest.mark.parametrize(("p", "factor"), [(0.9, 100), (0.968, 976.6), (0.5, 4)])
def test_an_easy_answer_fades_as_the_paper_says(p: float, factor: float) -> None:
    """Section 3.2: at γ = 2 and p_t = 0.9 a hundred times less than cross entropy."""
    z, one = torch.tensor([logit(p)], dtype=torch.float64), torch.ones(1).double()
    cross_entropy = focal_loss(z, one, alpha=1, gamma=0)
    assert cross_entropy.item() == pytest.approx(-math.log(p))
    assert (cross_entropy / focal_loss(z, one, alpha=1)).item() == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_value_and_gradient_are_torchvisions(alpha: float, gamma: float) -> None:
    logits, targets = random_logits(60, 7)
    theirs, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = sigmoid_focal_loss(theirs, targets, alpha, gamma, reduction="sum")
    value = focal_loss(ours, targets, alpha, gamma)
    torch.testing.assert_close(value, expected)
    (gradient,) = backward(value, ours)
    torch.testing.assert_close(gradient, backward(expected, theirs)[0])
    assert gradient.abs().max() > 0.1

    single = focal_loss(logits.float(), targets.float(), alpha, gamma)
    assert single.dtype == torch.float32
    assert single.shape == ()
    torch.testing.assert_close(single, expected.detach().float(), rtol=1e-5, atol=1e-5)


def test_the_defaults_are_the_papers() -> None:
    logits, targets = random_logits(60, 7)
    expected = sigmoid_focal_loss(logits, targets, 0.25, 2, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, targets), expected)


def test_alpha_one_half_and_gamma_0_is_half_of_binary_cross_entropy_and_alpha_1_is_not() -> None:
    logits, targets = random_logits(60, 7)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, targets, alpha=0.5, gamma=0), expected / 2)
    # α = 1 forgets the zeros.
    zeros = torch.zeros_like(targets)
    assert focal_loss(logits, zeros, alpha=1, gamma=0) == 0
    assert expected > 10


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradient_is_the_papers_appendix_b(gamma: float) -> None:
    """dFL/dx = y (1 − p_t)^γ (γ p_t log p_t + p_t − 1), times α_t."""
    logits, targets = random_logits(40)
    logits.requires_grad_()
    (gradient,) = backward(focal_loss(logits, targets, 0.25, gamma), logits)
    y = 2 * targets - 1
    p_t = torch.sigmoid(y * logits.detach())
    alpha_t = torch.where(targets > 0, 0.25, 0.75)
    expected = alpha_t * y * (1 - p_t) ** gamma * (gamma * p_t * p_t.log() + p_t - 1)
    torch.testing.assert_close(gradient, expected)
    assert torch.autograd.gradcheck(lambda z: focal_loss(z, targets, 0.25, gamma), (logits,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_huge_logits_cost_what_they_should_and_keep_their_slope(
    dtype: torch.dtype, gamma: float
) -> None:
    # Wrong and sure: α_t · |z|, slope α_t. Right and sure: nothing.
    logits = torch.tensor([-1e4, 1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    targets = torch.tensor([1, 0, 1, 0], dtype=dtype)
    value = focal_loss(logits, targets, gamma=gamma)
    size = logits.detach().abs()[0].item()  # bfloat16 has no 10000
    assert value.item() == pytest.approx((0.25 + 0.75) * size, rel=1e-6)
    (gradient,) = backward(value, logits)
    assert gradient.tolist() == [-0.25, 0.75, 0, 0]


def test_a_logit_of_minus_12_still_learns() -> None:
    """Where p is clamped at 1e-4 the loss says 2.302 and the slope is 0."""
    z = torch.tensor([-12.0], requires_grad=True)
    value = focal_loss(z, torch.ones(1))
    assert value.item() == pytest.approx(0.25 * 12, rel=1e-3)
    assert backward(value, z)[0].item() == pytest.approx(-0.25, rel=1e-3)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    logits, targets = random_logits(3000, 20)
    logits = logits.to(dtype)
    expected = sigmoid_focal_loss(logits.double(), targets, reduction="sum")
    assert expected > 10_000
    value = focal_loss(logits, targets.to(dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_49104_anchors_of_20_classes_on_paper() -> None:
    anchors = len(AnchorGenerator()((512, 512)))
    assert anchors == 49_104
    zeros = torch.zeros(anchors, 20)

    def at(prior: float, targets: Tensor) -> float:
        return focal_loss(torch.full((anchors, 20), logit(prior)), targets).item()

    assert at(0.01, zeros) == pytest.approx(0.740, abs=5e-4)
    assert at(0.01, zeros) == pytest.approx(anchors * 20 * focal_by_hand(0.01, 0), rel=1e-4)
    assert at(0.5, zeros) == pytest.approx(127_636, abs=1)
    ten = zeros.clone()
    ten[range(0, 10_000, 1000), range(10)] = 1
    assert at(0.01, ten) - at(0.01, zeros) == pytest.approx(10 * 1.128, abs=5e-3)


def test_focal_loss_of_nothing_is_zero() -> None:
    logits = torch.zeros(0, 20, requires_grad=True)
    value = focal_loss(logits, torch.zeros(0, 20))
    assert value.item() == 0
    assert backward(value, logits)[0].shape == (0, 20)


def test_whole_numbers_as_targets() -> None:
    logits, targets = random_logits(9, 4)
    expected = sigmoid_focal_loss(logits, targets, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, targets.long()), expected)
    torch.testing.assert_close(focal_loss(logits, targets.bool()), expected)


@pytest.mark.parametrize("loss", [focal_loss, smooth_l1_loss])
def test_shapes_that_would_broadcast_are_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).* \(4,\)"):
        loss(torch.zeros(3, 4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(3, 4\).* \(3, 1\)"):
        loss(torch.zeros(3, 4), torch.zeros(3, 1))


# --- smooth L1 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "beta", "loss"),
    [
        (0, 1, 0),
        (0.5, 1, 0.125),
        (-0.5, 1, 0.125),
        (1, 1, 0.5),
        (3, 1, 2.5),
        (-3, 1, 2.5),
        (3, 2, 2),
        (1, 2, 0.25),
        (0.5, 0, 0.5),
        (-3, 0, 3),
        (1, 1 / 9, 1 - 1 / 18),
    ],
)
def test_smooth_l1_by_hand(error: float, beta: float, loss: float) -> None:
    target = torch.tensor([[7.0]])
    assert smooth_l1_loss(target + error, target, beta).item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 0.5, 1.0, 2.0])
def test_smooth_l1_and_its_gradient_are_torchs(beta: float) -> None:
    g = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(50, 4, generator=g, dtype=torch.float64) for _ in range(2))
    theirs, ours = predicted.clone().requires_grad_(), predicted.clone().requires_grad_()
    expected = F.smooth_l1_loss(theirs, target, beta=beta, reduction="sum")
    value = smooth_l1_loss(ours, target, beta)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(backward(value, ours), backward(expected, theirs))
    assert torch.autograd.gradcheck(lambda p: smooth_l1_loss(p, target, beta), (ours,))


def test_beta_is_1_unless_asked_for() -> None:
    predicted = torch.tensor([0.5, 3.0])
    assert smooth_l1_loss(predicted, torch.zeros(2)).item() == 0.125 + 2.5


@pytest.mark.parametrize("beta", [1 / 9, 0.5, 1.0, 2.0])
def test_value_and_slope_are_continuous_at_beta_and_the_slope_is_at_most_1(beta: float) -> None:
    near = beta + torch.tensor([-1e-9, 0, 1e-9], dtype=torch.float64)
    values = torch.stack([smooth_l1_loss(e, torch.zeros(()).double(), beta) for e in near])
    torch.testing.assert_close(values, torch.full_like(values, beta / 2), rtol=0, atol=1e-8)
    errors = torch.cat([near, torch.linspace(-5, 5, 1001).double(), torch.tensor([1e4, -1e4])])
    errors.requires_grad_()
    (slope,) = backward(smooth_l1_loss(errors, torch.zeros_like(errors), beta), errors)
    torch.testing.assert_close(slope[:3], torch.ones(3).double(), rtol=0, atol=1e-7)
    assert slope.abs().max() <= 1
    assert slope[-2:].tolist() == [1, -1]


@pytest.mark.parametrize("dtype", HALF)
def test_smooth_l1_in_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    predicted = torch.full((100, 4), 1e4, dtype=dtype, requires_grad=True)
    value = smooth_l1_loss(predicted, -predicted.detach())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(400 * (2e4 - 0.5), rel=5e-3)
    assert (backward(value, predicted)[0] == 1).all()
    assert smooth_l1_loss(predicted[:0], predicted[:0]).item() == 0


def test_a_negative_beta_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 0, got -0\.5"):
        smooth_l1_loss(torch.zeros(4), torch.zeros(4), beta=-0.5)


# --- the criterion, on paper ----------------------------------------------------------------------

# Two places far apart, and at each an anchor of length 10 with two strips of it, 5 and 4 long:
# of an object that fills the place two anchors are positive and the third is ignored.
PLACE = torch.tensor([[0.0, 0, 10, 1], [0, 0, 5, 1], [0, 0, 4, 1]])
FAR = torch.tensor([0.0, 100, 0, 100])
ANCHORS = torch.cat([PLACE, PLACE + FAR, PLACE[:1] + 2 * FAR])  # (7, 4), the last one free
HERE, THERE = PLACE[0], PLACE[0] + FAR


def truth(*rows: tuple[Tensor, int], difficult: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and flags of one image from rows of (box, label)."""
    boxes = torch.stack([box for box, _ in rows]) if rows else torch.zeros(0, 4)
    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    return boxes, labels, torch.full((len(rows),), difficult)


def targets_of(*images: tuple[Tensor, Tensor, Tensor]) -> Targets:
    boxes, labels, difficult = zip(*images, strict=True)
    return Targets.from_list(boxes, labels, difficult)


def random_predictions(
    batch: int, anchors: int = 7, classes: int = 3, seed: int = 0, dtype: torch.dtype | None = None
) -> Predictions:
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, anchors, classes, generator=g)
    deltas = torch.randn(batch, anchors, 4, generator=g)
    return Predictions(
        logits.to(dtype or torch.float32).requires_grad_(),
        deltas.to(dtype or torch.float32).requires_grad_(),
        (anchors,),
    )


def gradients(predictions: Predictions, loss: Tensor) -> tuple[Tensor, Tensor]:
    logits, deltas = backward(loss, predictions.class_logits, predictions.box_deltas)
    return logits, deltas


@in_both_forms
def test_one_image_on_paper() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 1], [0, 0, 5, 1], [50, 50, 60, 60]])
    # IoU 9/11, 4/11 and 0: one positive and two background anchors.
    boxes = torch.tensor([[1.0, 0, 11, 1]])
    p = [[0.2, 0.7], [0.4, 0.1], [0.05, 0.6]]
    predictions = Predictions(
        torch.tensor([[[logit(x) for x in row] for row in p]]),
        torch.tensor([[[0.5, -2, 0, 0.25], [9, 9, 9, 9], [9, 9, 9, 9]]]),
        (3,),
    )
    targets = Targets.from_list([boxes], [torch.tensor([1])])
    losses = criterion(predictions, anchors, targets, box_loss_weight=3)
    rows = [(0.2, 0), (0.7, 1), (0.4, 0), (0.1, 0), (0.05, 0), (0.6, 0)]
    classification = sum(focal_by_hand(*row) for row in rows)
    # The box lies a tenth of a width to the right: errors 0.4, −2, 0, 0.25.
    box = 0.4**2 / 2 + 1.5 + 0 + 0.25**2 / 2
    assert losses.classification.item() == pytest.approx(classification, rel=1e-5)
    assert losses.box.item() == pytest.approx(box, rel=1e-5)
    assert losses.total.item() == pytest.approx(classification + 3 * box, rel=1e-5)
    assert [value.shape for value in losses] == [()] * 3
    assert {value.dtype for value in losses} == {torch.float32}

    l1 = criterion(predictions, anchors, targets, box_loss="l1").box
    assert l1.item() == pytest.approx(0.4 + 2 + 0 + 0.25, rel=1e-5)
    ninth = criterion(predictions, anchors, targets, beta=1 / 9).box
    assert ninth.item() == pytest.approx(0.4 + 2 + 0.25 - 3 / 18, rel=1e-5)


@in_both_forms
def test_giou_on_paper() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    targets = Targets.from_list([anchors], [torch.tensor([0])])
    deltas = torch.tensor([[[0.5, 0, 0, 0]]])  # half a width off: IoU 1/3, hull 15 × 10, no gap
    box = criterion(
        Predictions(torch.zeros(1, 1, 1), deltas, (1,)), anchors, targets, box_loss="giou"
    ).box
    assert box.item() == pytest.approx(1 - 1 / 3, rel=1e-5)
    deltas = torch.tensor([[[2.0, 0, 0, 0]]])  # beyond: IoU 0, a third of the hull is gap
    box = criterion(
        Predictions(torch.zeros(1, 1, 1), deltas, (1,)), anchors, targets, box_loss="giou"
    ).box
    assert box.item() == pytest.approx(1 + 1 / 3, rel=1e-5)


@in_both_forms
def test_normalisers_on_paper() -> None:
    """Images of 2, 0 and 4 positive anchors; at bias-only logits everything is countable."""
    predictions = Predictions(torch.full((3, 7, 2), logit(0.01)), torch.full((3, 7, 4), 1.0), (7,))
    predictions.box_deltas[2] = 2.0
    targets = targets_of(truth((HERE, 0)), truth(), truth((HERE, 1), (THERE, 0)))
    one, zero = focal_by_hand(0.01, 1), focal_by_hand(0.01, 0)
    # Of 7 anchors one is ignored in the first image, two in the third.
    sums = [2 * one + 10 * zero, 14 * zero, 4 * one + 6 * zero]
    # The strip of 5 needs dx = ½ and dw = ln 2, the whole one nothing.
    half = [0.5, 0, math.log(2), 0]
    first = 4 * 0.5 + sum((1 - x) ** 2 / 2 for x in half)
    third = 2 * (4 * 1.5 + sum(2 - x - 0.5 for x in half))

    image = criterion(predictions, ANCHORS, targets)
    assert image.classification.item() == pytest.approx(
        (sums[0] / 2 + sums[1] + sums[2] / 4) / 3, rel=1e-5
    )
    assert image.box.item() == pytest.approx((first / 2 + third / 4) / 3, rel=1e-5)
    assert criterion(predictions, ANCHORS, targets, normaliser="image") == image

    batch = criterion(predictions, ANCHORS, targets, normaliser="batch")
    assert batch.classification.item() == pytest.approx(sum(sums) / 6, rel=1e-5)
    assert batch.box.item() == pytest.approx((first + third) / 6, rel=1e-5)
    for found in (image, batch):
        assert found.total.item() == pytest.approx((found.classification + found.box).item())


@in_both_forms
def test_the_first_loss_of_a_network_of_20_classes_on_paper() -> None:
    anchors = AnchorGenerator()((512, 512))
    predictions = Predictions(
        torch.full((1, 49_104, 20), logit(0.01)), torch.zeros(1, 49_104, 4), (49_104,)
    )
    nothing = Targets.from_list([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])
    losses = criterion(predictions, anchors, nothing)
    assert losses.classification.item() == pytest.approx(0.740, abs=5e-4)
    assert losses.box.item() == 0

    box = torch.tensor([[100.0, 120, 260, 300]])
    iou = box_iou(anchors, box)[:, 0]
    positive, ignored = (iou >= 0.5).sum().item(), ((iou >= 0.4) & (iou < 0.5)).sum().item()
    assert positive > 10
    losses = criterion(predictions, anchors, Targets.from_list([box], [torch.tensor([19])]))
    zeros = (49_104 - ignored) * 20 - positive
    expected = focal_by_hand(0.01, 1) + zeros * focal_by_hand(0.01, 0) / positive
    assert losses.classification.item() == pytest.approx(expected, rel=1e-4)


# --- the criterion against torchvision's pieces ---------------------------------------------------


def by_torchvision(
    predictions: Predictions,
    anchors: Tensor,
    images: list[tuple[Tensor, Tensor, Tensor]],
    *,
    thresholds: tuple[float, float] = (0.5, 0.4),
    force: bool = False,
    alpha: float = 0.25,
    gamma: float = 2,
    box_loss: str = "smooth_l1",
    beta: float = 1,
    normaliser: str = "image",
) -> tuple[Tensor, Tensor]:
    """Classification and box loss, image by image, with torchvision's matcher, coder and losses."""
    coder, matcher = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0)), Matcher(*thresholds, force)
    sums = []
    for logits, deltas, (boxes, labels, difficult) in zip(*predictions[:2], images, strict=True):
        match = torch.full((len(anchors),), -1)
        if not difficult.all():
            match = matcher(box_iou(boxes[~difficult], anchors))
        if difficult.any():
            near = box_iou(boxes[difficult], anchors).amax(dim=0) >= thresholds[1]
            match[near & (match == -1)] = -2
        boxes, labels = boxes[~difficult], labels[~difficult]
        positive = match >= 0
        one_hot = torch.zeros_like(logits)
        one_hot[positive, labels[match[positive]]] = 1
        asked = match != -2
        classification = sigmoid_focal_loss(
            logits[asked], one_hot[asked], alpha, gamma, reduction="sum"
        )
        boxes = boxes[match[positive]]
        if box_loss == "giou":
            decoded = coder.decode_single(deltas[positive], anchors[positive])
            box = generalized_box_iou_loss(decoded, boxes, reduction="sum")
        else:
            box = F.smooth_l1_loss(
                deltas[positive],
                coder.encode_single(boxes, anchors[positive]),
                beta=beta if box_loss == "smooth_l1" else 0,
                reduction="sum",
            )
        sums.append((classification, box, positive.sum()))
    classification, box, count = (torch.stack(column) for column in zip(*sums, strict=True))
    if normaliser == "batch":
        return classification.sum() / count.sum(), box.sum() / count.sum()
    count = count.clamp(min=1)
    return (classification / count).mean(), (box / count).mean()


def scenes(difficult: bool = True) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """Anchors of 96 × 128 and five images: of 7, 0, 3, 20 objects and of a difficult one."""
    g = torch.Generator().manual_seed(3)
    images = []
    for count in (7, 0, 3, 20, 1):
        sides = 10 * 10 ** torch.rand(count, 2, generator=g)
        sides = sides.minimum(torch.tensor([120, 90]))
        corner = (torch.tensor([128, 96]) - sides) * torch.rand(count, 2, generator=g)
        flags = torch.arange(count) % 3 == 0
        images.append(
            (
                torch.cat([corner, corner + sides], dim=1),
                torch.randint(0, 4, (count,), generator=g),
                flags if difficult else torch.zeros_like(flags),
            )
        )
    return AnchorGenerator()((96, 128)), images


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normaliser": "batch"},
        {"box_loss": "l1"},
        {"box_loss": "giou"},
        {"box_loss": "giou", "normaliser": "batch"},
        {"beta": 1 / 9},
        {"alpha": 0.6, "gamma": 1.0},
        {"thresholds": (0.6, 0.3)},
        {"force": True},
    ],
    ids=str,
)
@in_both_forms
def test_losses_and_gradients_are_those_of_torchvisions_pieces(settings: dict[str, Any]) -> None:
    anchors, images = scenes()
    theirs = random_predictions(5, len(anchors), 4)
    expected = by_torchvision(theirs, anchors, images, **settings)
    expected_gradients = gradients(theirs, expected[0] + 2.5 * expected[1])

    ours = random_predictions(5, len(anchors), 4)
    keywords = dict(settings)
    if "thresholds" in keywords:
        keywords["positive"], keywords["negative"] = keywords.pop("thresholds")
    if "force" in keywords:
        keywords["force_match"] = keywords.pop("force")
    losses = criterion(ours, anchors, targets_of(*images), box_loss_weight=2.5, **keywords)
    assert losses.box > 0.1
    torch.testing.assert_close(losses.classification, expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses.box, expected[1], rtol=1e-5, atol=0)
    for gradient, other in zip(gradients(ours, losses.total), expected_gradients, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-7)


@in_both_forms
def test_difficult_objects_are_trained_on_when_asked_for() -> None:
    anchors, images = scenes()
    _, easy = scenes(difficult=False)
    predictions = random_predictions(5, len(anchors), 4)
    expected = by_torchvision(predictions, anchors, easy)
    losses = criterion(predictions, anchors, targets_of(*images), train_difficult=True)
    torch.testing.assert_close((losses.classification, losses.box), expected)
    without = criterion(predictions, anchors, targets_of(*images))
    assert (without.classification - losses.classification).abs() > 0.1


# --- where gradients flow -------------------------------------------------------------------------


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@in_both_forms
def test_ignored_anchors_have_no_gradient_and_deltas_only_where_positive(box_loss: str) -> None:
    predictions = random_predictions(3)
    targets = targets_of(
        truth((HERE, 0)), truth((HERE, 1), (THERE, 2)), truth((THERE, 1), difficult=True)
    )
    losses = criterion(predictions, ANCHORS, targets, box_loss=box_loss)
    logits, deltas = gradients(predictions, losses.total)
    asked = torch.ones(3, 7, dtype=torch.bool)
    asked[0, 2] = False  # the strip of 4
    asked[1, [2, 5]] = False
    asked[2, 3:6] = False  # all that overlap the difficult object
    assert (logits[~asked] == 0).all()
    assert (logits[asked] != 0).all()
    # Up for the object's class, down for all others.
    up = torch.zeros(3, 7, 3, dtype=torch.bool)
    up[0, [0, 1], 0] = up[1, [0, 1], 1] = up[1, [3, 4], 2] = True
    assert torch.equal(logits < 0, up)
    positive = up.any(dim=2)
    assert (deltas[~positive] == 0).all()
    assert (deltas[positive].abs().amax(dim=1) > 0).all()


@in_both_forms
def test_the_two_losses_do_not_touch_each_others_outputs() -> None:
    targets = targets_of(truth((HERE, 0)))
    predictions = random_predictions(1)
    logits, deltas = torch.autograd.grad(
        criterion(predictions, ANCHORS, targets).classification,
        predictions[:2],
        allow_unused=True,
    )
    assert logits.abs().max() > 0
    assert deltas is None or (deltas == 0).all()
    logits, deltas = torch.autograd.grad(
        criterion(predictions, ANCHORS, targets).box, predictions[:2], allow_unused=True
    )
    assert logits is None or (logits == 0).all()
    assert deltas.abs().max() > 0


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@pytest.mark.parametrize("normaliser", ["image", "batch"])
@in_both_forms
def test_the_gradient_is_that_of_the_value(box_loss: str, normaliser: str) -> None:
    targets = targets_of(truth((HERE + 0.3, 0)), truth(), truth((HERE, 1), (THERE - 0.2, 2)))
    predictions = random_predictions(3, dtype=torch.float64)

    def total(logits: Tensor, deltas: Tensor) -> Tensor:
        return criterion(
            Predictions(logits, 0.1 * deltas, (7,)),
            ANCHORS,
            targets,
            box_loss=box_loss,
            normaliser=normaliser,
        ).total

    assert total(*predictions[:2]).dtype == torch.float64
    assert torch.autograd.gradcheck(total, predictions[:2])


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@in_both_forms
def test_huge_outputs_have_finite_losses_and_gradients(box_loss: str, dtype: torch.dtype) -> None:
    targets = targets_of(truth((HERE, 0)), truth(), truth((HERE, 1), (THERE, 2)))
    signs = torch.randint(0, 2, (3, 7, 7), generator=torch.Generator().manual_seed(0)) * 2 - 1
    huge = (1e4 * signs).to(dtype)
    predictions = Predictions(
        huge[..., :3].clone().requires_grad_(), huge[..., 3:].clone().requires_grad_(), (7,)
    )
    losses = criterion(predictions, ANCHORS, targets, box_loss=box_loss)
    assert all(value.isfinite() for value in losses)
    assert losses.classification > 1000
    logits, _ = gradients(predictions, losses.total)
    assert logits.abs().max() > 0.1


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@in_both_forms
def test_half_precision_outputs_are_computed_in_float32(box_loss: str, dtype: torch.dtype) -> None:
    anchors, images = scenes()
    predictions = random_predictions(5, len(anchors), 4, dtype=dtype)
    same = Predictions(*(tensor.detach().float() for tensor in predictions[:2]), (len(anchors),))
    losses = criterion(predictions, anchors, targets_of(*images), box_loss=box_loss)
    expected = by_torchvision(same, anchors, images, box_loss=box_loss)
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.classification, expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses.box, expected[1], rtol=1e-5, atol=0)
    assert all(gradient.dtype == dtype for gradient in gradients(predictions, losses.total))


# --- images without objects, padding, laws --------------------------------------------------------


@pytest.mark.parametrize("normaliser", ["image", "batch"])
@pytest.mark.parametrize("padding", [0, 3])
@in_both_forms
def test_images_without_objects_train_as_pure_background(padding: int, normaliser: str) -> None:
    predictions = random_predictions(2)
    targets = Targets(
        torch.zeros(2, padding, 4),
        torch.zeros(2, padding, dtype=torch.int64),
        torch.zeros(2, padding, dtype=torch.bool),
        torch.zeros(2, dtype=torch.int64),
    )
    losses = criterion(predictions, ANCHORS, targets, normaliser=normaliser)
    logits = predictions.class_logits
    expected = sigmoid_focal_loss(logits, torch.zeros_like(logits), reduction="sum")
    expected = expected / (2 if normaliser == "image" else 1)
    torch.testing.assert_close(losses.classification, expected)
    assert losses.box.item() == 0
    torch.testing.assert_close(losses.total, expected)
    of_logits, of_deltas = gradients(predictions, losses.total)
    assert (of_logits > 0).all()  # every false alarm is pushed down
    assert (of_deltas == 0).all()  # zero and not missing: several devices wait for it


@in_both_forms
def test_padding_of_any_kind_costs_nothing() -> None:
    """What lies beyond `count` may be nonsense, except that its boxes are zero."""
    predictions = random_predictions(1)
    plain = targets_of(truth((HERE, 0)))
    expected = criterion(predictions, ANCHORS, plain)
    padded = Targets(
        F.pad(plain.boxes, (0, 0, 0, 2)),
        torch.tensor([[0, -1, 99]]),
        torch.tensor([[False, True, False]]),
        plain.count,
    )
    assert criterion(predictions, ANCHORS, padded) == expected


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@in_both_forms
def test_law_a_batch_is_the_mean_of_its_images(box_loss: str) -> None:
    anchors, images = scenes()
    predictions = random_predictions(5, len(anchors), 4)
    batch = criterion(predictions, anchors, targets_of(*images), box_loss=box_loss)
    alone = [
        criterion(
            Predictions(logits[None], deltas[None], (len(anchors),)),
            anchors,
            targets_of(image),
            box_loss=box_loss,
        )
        for logits, deltas, image in zip(*predictions[:2], images, strict=True)
    ]
    for value, values in zip(batch, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(value, torch.stack(values).mean())


@in_both_forms
def test_an_object_that_overlaps_no_anchor_leaves_the_image_background() -> None:
    predictions = random_predictions(1)
    lost = truth((torch.tensor([5000.0, 5000, 5010, 5010]), 1))
    expected = criterion(predictions, ANCHORS, targets_of(truth()))
    for force in (False, True):
        losses = criterion(predictions, ANCHORS, targets_of(lost), force_match=force)
        assert losses == expected
        assert losses.box.item() == 0


@in_both_forms
def test_targets_are_left_as_they_were() -> None:
    anchors, images = scenes()
    targets = targets_of(*images)
    before = [tensor.clone() for tensor in vars(targets).values()]
    criterion(random_predictions(5, len(anchors), 4), anchors, targets, train_difficult=True)
    criterion(random_predictions(5, len(anchors), 4), anchors, targets)
    for tensor, old in zip(vars(targets).values(), before, strict=True):
        assert torch.equal(tensor, old)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [3, -1, 20])
@pytest.mark.parametrize(
    "box", [HERE, torch.tensor([5000.0, 5000, 5010, 5010])], ids=["matched", "matched by no anchor"]
)
@pytest.mark.parametrize("difficult", [False, True])
def test_a_label_that_is_no_class_raises_an_index_error(
    label: int, box: Tensor, difficult: bool
) -> None:
    targets = targets_of(truth((THERE, 2)), truth((box, label), difficult=difficult))
    low, high = min(label, 2), max(label, 2)
    with pytest.raises(
        IndexError, match=f"labels run from {low} to {high}, but the model has 3 classes: .*0…2"
    ):
        criterion(random_predictions(2), ANCHORS, targets)


@in_both_forms
def test_every_class_has_a_label_and_the_last_is_the_number_of_classes_less_one() -> None:
    targets = targets_of(truth((HERE, 2)))
    predictions = random_predictions(1)
    logits, _ = gradients(predictions, criterion(predictions, ANCHORS, targets).total)
    assert (logits[0, 0] < 0).tolist() == [False, False, True]


@in_both_forms
def test_what_does_not_fit_is_refused() -> None:
    logits, deltas, levels = random_predictions(2)
    one, two = targets_of(truth((HERE, 0))), targets_of(truth((HERE, 0)), truth())
    with pytest.raises(ValueError, match=r"2 images and 7 anchors, .* 2 images .* 6 anchors"):
        criterion(Predictions(logits, deltas, levels), ANCHORS[:6], two)
    with pytest.raises(ValueError, match=r"2 images and 7 anchors, .* 1 images .* 7 anchors"):
        criterion(Predictions(logits, deltas, levels), ANCHORS, one)
    for wrong in (deltas[:1], deltas[:, :6], deltas[..., :3], torch.cat([deltas, deltas], dim=1)):
        with pytest.raises(ValueError, match=r"need box deltas \(2, 7, 4\), got"):
            criterion(Predictions(logits, wrong, levels), ANCHORS, two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_loss": "ciou"}, "'smooth_l1', 'l1' or 'giou', not 'ciou'"),
        ({"normaliser": "sum"}, "'image' or 'batch', not 'sum'"),
        ({"positive": 0.3}, "need 0 < negative ≤ positive ≤ 1, got 0.4 and 0.3"),
        ({"beta": -1.0}, "at least 0"),
    ],
)
@pytest.mark.parametrize("objects", [True, False])
@in_both_forms
def test_unknown_settings_are_refused_with_and_without_objects(
    settings: dict[str, Any], message: str, objects: bool
) -> None:
    targets = targets_of(truth((HERE, 0)) if objects else truth())
    with pytest.raises(ValueError, match=message):
        criterion(random_predictions(1), ANCHORS, targets, **settings)


# --- two forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("piece", [1, 1000, 1 << 17])
def test_both_forms_give_the_same_losses_and_gradients(
    gamma: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form for a CPU in pieces of any size; logits at which float32 has nothing left of p."""
    anchors, images = scenes()
    found = []
    for on_cpu in (True, False):
        monkeypatch.setattr(losses, "_PIECE", piece)
        monkeypatch.setattr(losses, "is_on_cpu", lambda values, on_cpu=on_cpu: on_cpu)
        predictions = random_predictions(5, len(anchors), 4, dtype=torch.float64)
        with torch.no_grad():
            predictions.class_logits[:, ::7] *= 20
        loss = criterion(predictions, anchors, targets_of(*images), gamma=gamma)
        found.append((torch.stack(loss), *gradients(predictions, loss.total)))
    for cpu, gpu in zip(*found, strict=True):
        torch.testing.assert_close(cpu, gpu, rtol=1e-6, atol=1e-12)


def test_the_pieces_keep_every_digit_that_float32_has() -> None:
    """Against float64, for the value and for the slope of a background's logit."""
    z = torch.linspace(-40, 90, 100_001)
    weights, nothing = torch.ones(1, len(z)), torch.zeros(0)

    def by_pieces(z: Tensor, gamma: float) -> Tensor:
        return losses._FocalSum.apply(
            z[None, :, None], weights, nothing.long(), nothing, 0.0, gamma
        )

    for gamma in (0.0, 0.5, 2.0):
        exact = z.double().requires_grad_()
        (slope,) = backward((F.softplus(exact) * exact.sigmoid() ** gamma).sum(), exact)
        ours = z.clone().requires_grad_()
        (found,) = backward(by_pieces(ours, gamma), ours)
        torch.testing.assert_close(found.double(), slope, rtol=5e-6, atol=1e-36)
        for one in (-40.0, -17.0, -16.0, -3.0, 0.0, 5.0, 16.0, 17.0, 89.0):
            exact = torch.tensor(one).double()
            expected = torch.log1p(exact.exp()) * exact.sigmoid() ** gamma
            value = losses._FocalSum.apply(
                torch.full((1, 1, 1), one), torch.ones(1, 1), nothing.long(), nothing, 0.0, gamma
            )
            assert value.item() == pytest.approx(expected.item(), rel=2e-6, abs=1e-36)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("settings", [{}, {"force_match": True}, {"normaliser": "batch"}], ids=str)
def test_a_gpu_has_few_operations_to_do_and_is_never_waited_for(
    batch: int, settings: dict[str, Any]
) -> None:
    """On the meta device tensors have shapes and no numbers: who asks for one gets an error."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(batch, *shape, dtype=dtype, device="meta")

    predictions = Predictions(
        empty(500, 20).requires_grad_(), empty(500, 4).requires_grad_(), (400, 100)
    )
    targets = Targets(
        empty(9, 4),
        empty(9, dtype=torch.int64),
        empty(9, dtype=torch.bool),
        empty(dtype=torch.int64),
    )
    anchors = torch.empty(500, 4, device="meta")
    counted = count_operations(
        lambda: criterion(predictions, anchors, targets, **settings).total.backward()
    )
    assert 50 < counted.total() <= 120


def test_arguments_have_names() -> None:
    predictions, targets = random_predictions(1), targets_of(truth((HERE, 1)))
    named = criterion(predictions=predictions, anchors=ANCHORS, targets=targets)
    assert named.total == criterion(predictions, ANCHORS, targets).total


def test_a_second_derivative_is_refused_where_there_is_none() -> None:
    predictions, targets = random_predictions(1), targets_of(truth((HERE, 1)))
    factor = torch.ones((), requires_grad=True)
    loss = factor * criterion(predictions, ANCHORS, targets).classification
    (slope,) = torch.autograd.grad(loss, predictions.class_logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_alpha_keeps_the_precision_of_the_logits() -> None:
    logits = torch.tensor([0.3, -0.2], dtype=torch.float64)
    ones, zeros = torch.ones(2), torch.zeros(2)
    for alpha in (0.1, 0.3):
        expected = alpha * F.softplus(-logits).sum() + (1 - alpha) * F.softplus(logits).sum()
        both = focal_loss(logits, ones, alpha, 0.0) + focal_loss(logits, zeros, alpha, 0.0)
        torch.testing.assert_close(both, expected, rtol=1e-14, atol=0)


def test_logits_that_lie_otherwise_in_memory_have_the_same_gradient() -> None:
    """A head of one's own may give (B, K, N) transposed: dense, but not contiguous."""
    anchors = AnchorGenerator()((64, 64))
    boxes = torch.tensor([[8.0, 8.0, 44.0, 40.0]])
    targets = Targets.from_list(boxes=[boxes], labels=[torch.tensor([2])])
    logits = torch.randn(1, 3, len(anchors), generator=torch.Generator().manual_seed(0)) - 3
    deltas = torch.zeros(1, len(anchors), 4)
    slopes = []
    for own in (logits.transpose(1, 2), logits.transpose(1, 2).contiguous()):
        own = own.detach().requires_grad_()
        loss = criterion(Predictions(own, deltas, (len(anchors),)), anchors, targets).total
        slopes.append(torch.autograd.grad(loss, own)[0])
    assert slopes[0].min() < 0  # of the object's logit, which is to rise
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=0)
