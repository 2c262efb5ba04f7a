"""matching: thresholds met exactly, exact fractions, and torchvision's matcher."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from conftest import fraction_iou
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet_edu import matching
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.matching import BACKGROUND, IGNORED, match_anchors, match_targets

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("form")]

THRESHOLDS = [(0.5, 0.4), (0.6, 0.3), (0.5, 0.5), (0.6, 0.2)]

# Strips of an object 10 × 1: their IoU with it is their length / 10.
OBJECT = [0.0, 0, 10, 1]


def strips(*lengths: float) -> Tensor:
    return torch.tensor([[0, 0, length, 1] for length in lengths])


def whole_boxes(count: int, seed: int, low: int = 1) -> Tensor:
    """Boxes of whole numbers: many ties, many overlaps of exactly 0.4 and 0.5."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 4, (count, 2), generator=g)
    sides = torch.randint(low, 6, (count, 2), generator=g)
    return torch.cat([corner, corner + sides], dim=1)


def match_by_loop(anchors: Tensor, boxes: Tensor, positive: Fraction, negative: Fraction) -> Tensor:
    match = []
    for anchor in anchors.tolist():
        best, best_iou = BACKGROUND, Fraction(0)
        for index, box in enumerate(boxes.tolist()):
            iou = fraction_iou(anchor, box)
            if iou > best_iou:  # of equals the first
                best, best_iou = index, iou
        if best_iou < negative:
            best = BACKGROUND
        elif best_iou < positive:
            best = IGNORED
        match.append(best)
    return torch.tensor(match)


def scene(seed: int, count: int = 10) -> tuple[Tensor, Tensor]:
    """The anchors of an image and random objects in it, each of which overlaps some anchor."""
    g = torch.Generator().manual_seed(seed)
    sides = 6 * 30 ** torch.rand(count, 2, generator=g)
    corner = (torch.tensor([190, 130]) - sides) * torch.rand(count, 2, generator=g)
    return AnchorGenerator()((130, 190)), torch.cat([corner, corner + sides], dim=1)


# --- thresholds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exactly_half_is_positive_and_exactly_two_fifths_is_ignored(dtype: torch.dtype) -> None:
    anchors = strips(10, 5, 4.999, 4, 3.999, 0).to(dtype)
    objects = torch.tensor([OBJECT], dtype=dtype)
    assert match_anchors(anchors, objects).tolist() == [0, 0, -2, -2, -1, -1]
    # Wider than the object instead of narrower: 10 / 20 and 10 / 25.
    assert match_anchors(strips(20, 20.01, 25, 25.01).to(dtype), objects).tolist() == [
        *[0, -2],
        *[-2, -1],
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("positive", "negative", "match"),
    [
        (0.7, 0.3, [0, -2, -2, -2, -2, -1]),
        (0.7, 0.7, [0, -1, -1, -1, -1, -1]),
        (0.5, 0.5, [0, 0, 0, -1, -1, -1]),
        (0.6, 0.4, [0, 0, -2, -2, -1, -1]),
        (0.3, 0.2, [0, 0, 0, 0, 0, -2]),
        (1.0, 0.2, [-2, -2, -2, -2, -2, -2]),
    ],
)
def test_other_thresholds_met_exactly(
    dtype: torch.dtype, positive: float, negative: float, match: list[int]
) -> None:
    anchors = strips(7, 6, 5, 4, 3, 2).to(dtype)
    objects = torch.tensor([OBJECT], dtype=dtype)
    assert match_anchors(anchors, objects, positive, negative).tolist() == match


@pytest.mark.parametrize(("positive", "negative"), THRESHOLDS)
@pytest.mark.parametrize("seed", range(3))
def test_matches_are_those_of_exact_arithmetic(seed: int, positive: float, negative: float) -> None:
    anchors, boxes = whole_boxes(150, seed), whole_boxes(6, seed + 10, low=0)
    exact = Fraction(str(positive)), Fraction(str(negative))
    best = {max(fraction_iou(a, b) for b in boxes.tolist()) for a in anchors.tolist()}
    assert set(exact) <= best  # both thresholds are met exactly
    expected = match_by_loop(anchors, boxes, *exact)
    assert torch.equal(match_anchors(anchors, boxes, positive, negative), expected)
    assert torch.equal(
        match_anchors(anchors.double(), boxes.double(), positive, negative), expected
    )
    assert len(expected.unique()) > 3


@pytest.mark.parametrize(
    ("positive", "negative"), [(0.4, 0.5), (0.5, 0), (0.5, -0.1), (1.1, 0.4), (0, 0)]
)
def test_thresholds_in_the_wrong_order_or_range_are_refused(
    positive: float, negative: float
) -> None:
    message = f"0 < negative ≤ positive ≤ 1, got {negative} and {positive}"
    boxes = strips(1)
    with pytest.raises(ValueError, match=message):
        match_anchors(boxes, boxes, positive, negative)
    with pytest.raises(ValueError, match=message):
        match_targets(boxes, boxes[:0], torch.zeros(0, dtype=torch.bool), positive, negative)


# --- which object ---------------------------------------------------------------------------------


def test_an_anchor_takes_its_best_object_and_of_equals_the_first() -> None:
    anchors = strips(10, 6)
    objects = strips(7, 10, 10, 6)
    assert match_anchors(anchors, objects).tolist() == [1, 3]
    assert match_anchors(anchors, objects.flip(0)).tolist() == [1, 0]
    # 8 lies between: 7/8 of one and 8/10 of the others.
    assert match_anchors(strips(8), objects).tolist() == [0]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_law_no_object_that_another_beats_and_none_below_the_threshold(
    seed: int, force: bool
) -> None:
    anchors, boxes = scene(seed)
    iou = box_iou(anchors, boxes)
    match = match_anchors(anchors, boxes, force_match=force)
    positive = match >= 0
    own = iou[positive].gather(1, match[positive, None])[:, 0]
    assert len(own) > 20
    assert torch.equal(own, iou[positive].amax(dim=1))
    assert (own >= 0.5).all() != force
    assert (iou[match == BACKGROUND] < 0.4).all()
    assert (iou[match == IGNORED].amax(dim=1) >= 0.4).all()
    assert (iou[~positive] < 0.5).all()


@pytest.mark.parametrize(("positive", "negative"), THRESHOLDS)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_matches_are_torchvisions_on_random_boxes(
    seed: int, force: bool, positive: float, negative: float
) -> None:
    anchors, boxes = scene(seed)
    iou = box_iou(boxes, anchors)
    assert (iou.amax(dim=1) > 0).all()
    expected = Matcher(positive, negative, allow_low_quality_matches=force)(iou)
    assert ((expected >= 0) & (iou.amax(dim=0) < positive)).any() == force
    match = match_anchors(anchors, boxes, positive, negative, force_match=force)
    assert torch.equal(match, expected)


@pytest.mark.parametrize("seed", range(3))
def test_forced_matches_are_torchvisions_where_many_anchors_tie(seed: int) -> None:
    anchors, boxes = whole_boxes(150, seed).float(), 3 * whole_boxes(6, seed + 10).float()
    iou = box_iou(boxes, anchors)
    boxes, iou = boxes[iou.amax(dim=1) > 0], iou[iou.amax(dim=1) > 0]
    claims = (iou == iou.amax(dim=1, keepdim=True)).sum(dim=1)
    assert (claims > 1).any()
    expected = Matcher(0.5, 0.4, allow_low_quality_matches=True)(iou)
    assert torch.equal(match_anchors(anchors, boxes, force_match=True), expected)


def test_a_forced_anchor_keeps_its_own_best_object() -> None:
    """The second object claims the only anchor near both, and does not get it."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    objects = torch.tensor([[0.0, 0, 10, 8], [0, 0, 2, 2]])
    assert match_anchors(anchors, objects).tolist() == [0, -1]
    assert match_anchors(anchors, objects, force_match=True).tolist() == [0, -1]
    # Alone it gets it, however little it overlaps.
    assert match_anchors(anchors, objects[1:], force_match=True).tolist() == [0, -1]
    assert match_anchors(anchors, objects[1:]).tolist() == [-1, -1]


def test_a_forced_match_turns_ignored_and_background_anchors_positive() -> None:
    anchors = strips(4, 3, 2, 1)
    objects = torch.tensor([OBJECT])
    assert match_anchors(anchors, objects).tolist() == [-2, -1, -1, -1]
    assert match_anchors(anchors, objects, force_match=True).tolist() == [0, -1, -1, -1]
    assert match_anchors(anchors[1:], objects, force_match=True).tolist() == [0, -1, -1]


@pytest.mark.parametrize("force", [False, True])
def test_an_object_that_overlaps_no_anchor_changes_nothing(force: bool) -> None:
    anchors, boxes = scene(0)
    lost = torch.tensor([[5000.0, 5000, 5010, 5010]])
    assert box_iou(anchors, lost).max() == 0
    both = match_anchors(anchors, torch.cat([boxes, lost]), force_match=force)
    assert torch.equal(both, match_anchors(anchors, boxes, force_match=force))
    assert (match_anchors(anchors, lost, force_match=force) == BACKGROUND).all()
    # torchvision's matcher makes every anchor positive.
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(lost, anchors))
    assert (theirs == 0).all()


def test_force_match_is_off_unless_asked_for() -> None:
    anchors, boxes = scene(1)
    expected = Matcher(0.5, 0.4)(box_iou(boxes, anchors))
    assert torch.equal(match_anchors(anchors, boxes), expected)
    none = torch.zeros(len(boxes), dtype=torch.bool)
    assert torch.equal(match_targets(anchors, boxes, none), expected)


# --- shapes, padding, types -----------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_padding_with_zero_boxes_changes_nothing(force: bool) -> None:
    anchors, boxes = scene(2)
    anchors = torch.cat([anchors, torch.zeros(2, 4)])  # nor does an anchor without area match them
    expected = match_anchors(anchors, boxes, force_match=force)
    padded = torch.cat([boxes, torch.zeros(5, 4)])
    assert torch.equal(match_anchors(anchors, padded, force_match=force), expected)
    assert (expected[-2:] == BACKGROUND).all()
    only = match_anchors(anchors, torch.zeros(3, 4), force_match=force)
    assert (only == BACKGROUND).all()


@pytest.mark.parametrize("force", [False, True])
def test_a_batch_is_its_images_one_by_one(force: bool) -> None:
    anchors, _ = scene(0)
    boxes = torch.stack([scene(seed)[1] for seed in range(6)])  # (6, 10, 4)
    boxes[2, 4:] = 0
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=force)
    expected = [matcher(box_iou(b[b.any(dim=1)], anchors)) for b in boxes]
    match = match_anchors(anchors, boxes, force_match=force)
    assert match.shape == (6, len(anchors))
    assert match.dtype == torch.int64
    assert torch.equal(match, torch.stack(expected))
    deep = match_anchors(anchors, boxes.view(2, 3, 10, 4), force_match=force)
    assert torch.equal(deep, match.view(2, 3, -1))


def test_without_objects_everything_is_background() -> None:
    anchors, _ = scene(0)
    for shape in [(0, 4), (3, 0, 4)]:
        boxes, difficult = torch.zeros(shape), torch.zeros(shape[:-1], dtype=torch.bool)
        for match in (
            match_anchors(anchors, boxes),
            match_anchors(anchors, boxes, force_match=True),
            match_targets(anchors, boxes, difficult),
        ):
            assert match.shape == (*shape[:-2], len(anchors))
            assert match.dtype == torch.int64
            assert (match == BACKGROUND).all()


def test_without_anchors_there_are_no_matches() -> None:
    match = match_anchors(torch.zeros(0, 4), torch.tensor([OBJECT]))
    assert match.shape == (0,)
    assert match.dtype == torch.int64


def test_boxes_without_area_match_nothing_even_each_other() -> None:
    flat = torch.tensor([[3.0, 3, 3, 9], [0, 0, 0, 0], [7, 7, 5, 5]])
    for force in (False, True):
        assert match_anchors(flat, flat, force_match=force).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_half_precision_and_whole_numbers(dtype: torch.dtype) -> None:
    anchors = (32 * whole_boxes(100, 0)).to(dtype)  # areas beyond float16
    boxes = (32 * whole_boxes(5, 1)).to(dtype)
    expected = Matcher(0.5, 0.4)(box_iou(boxes.double(), anchors.double()))
    assert len(expected.unique()) > 4
    assert torch.equal(match_anchors(anchors, boxes), expected)


# --- difficult objects ----------------------------------------------------------------------------


def test_difficult_objects_by_hand() -> None:
    far = torch.tensor([0, 50, 0, 50])
    anchors = torch.cat(
        [strips(10, 5, 4, 3.9), strips(10, 5, 4, 3.9) + far, torch.tensor([[0.0, 90, 9, 99]])]
    )
    objects = torch.stack([torch.tensor(OBJECT), torch.tensor(OBJECT) + far])
    easy, hard = torch.tensor([False, False]), torch.tensor([False, True])
    assert match_targets(anchors, objects, easy).tolist() == [0, 0, -2, -1, 1, 1, -2, -1, -1]
    # Near the difficult one, from 0.4 on, nothing is asked; elsewhere nothing changes.
    assert match_targets(anchors, objects, hard).tolist() == [0, 0, -2, -1, -2, -2, -2, -1, -1]
    assert match_targets(anchors, objects, ~hard).tolist() == [-2, -2, -2, -1, 1, 1, -2, -1, -1]
    assert match_targets(anchors, objects, ~easy).tolist() == [-2, -2, -2, -1] * 2 + [-1]
    assert match_targets(anchors, objects, hard, 0.5, 0.5).tolist() == [
        *[0, 0, -1, -1],
        *[-2, -2, -1, -1],
        -1,
    ]


def test_a_difficult_object_never_takes_an_anchor_from_another() -> None:
    """The anchor is the difficult object's own shape, but half of the other's."""
    anchors = strips(5, 5.5)
    objects = strips(5, 10)
    assert match_targets(anchors, objects, torch.tensor([False, False])).tolist() == [0, 0]
    assert match_targets(anchors, objects, torch.tensor([True, False])).tolist() == [1, 1]
    # Ignored because of the other object, and ignored it stays.
    assert match_targets(strips(4), objects, torch.tensor([True, False])).tolist() == [-2]
    # A forced match is not taken back either.
    match = match_targets(strips(3), strips(3, 10), torch.tensor([True, False]), force_match=True)
    assert match.tolist() == [1]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_law_of_difficult_objects(seed: int, force: bool) -> None:
    anchors, boxes = scene(seed, count=40)
    difficult = torch.arange(40) % 2 == 0
    iou = box_iou(boxes, anchors)
    others = Matcher(0.5, 0.4, allow_low_quality_matches=force)(iou[~difficult])
    others = torch.where(others >= 0, 2 * others + 1, others)  # indices among all forty
    near = iou[difficult].amax(dim=0) >= 0.4
    expected = torch.where((others == BACKGROUND) & near, IGNORED, others)
    assert not torch.equal(expected, others)
    assert (near & (others >= 0)).any()
    match = match_targets(anchors, boxes, difficult, force_match=force)
    assert torch.equal(match, expected)
    batch = match_targets(
        anchors,
        torch.stack([boxes, boxes]),
        torch.stack([difficult, torch.zeros_like(difficult)]),
        force_match=force,
    )
    assert torch.equal(batch[0], expected)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=force)
    assert torch.equal(batch[1], matcher(iou))


def test_a_difficult_object_beyond_all_anchors_changes_nothing() -> None:
    anchors, boxes = scene(0)
    lost = torch.cat([boxes, torch.tensor([[5000.0, 5000, 5010, 5010]])])
    difficult = torch.tensor([False] * 10 + [True])
    expected = Matcher(0.5, 0.4)(box_iou(boxes, anchors))
    assert torch.equal(match_targets(anchors, lost, difficult), expected)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_objects_of_every_kind_are_matched_in_both_forms_alike(
    dtype: torch.dtype, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties, difficult ones, padding, inverted boxes and points, and two leading axes."""
    anchors = whole_boxes(300, seed=1, low=0)
    boxes = torch.stack([whole_boxes(12, seed=s, low=-1) for s in range(6)]).view(2, 3, 12, 4)
    boxes[:, 1, 5:] = 0
    difficult = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(0)) < 0.3
    found = []
    for on_cpu in (True, False):
        monkeypatch.setattr(matching, "is_on_cpu", lambda values, on_cpu=on_cpu: on_cpu)
        found.append(match_targets(anchors, boxes.to(dtype), difficult, force_match=force))
    assert found[0].shape == (2, 3, 300)
    assert (found[0] >= 0).any()
    assert (found[0] == IGNORED).any()
    assert (found[0] == BACKGROUND).any()
    assert torch.equal(*found)


def test_thresholds_have_names_and_an_object_of_one_square_pixel_is_one() -> None:
    anchors = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 1]])
    settings = {"positive": 0.9, "negative": 0.5, "force_match": False}
    assert match_anchors(anchors, anchors[:1], **settings).tolist() == [0, IGNORED]
    none = torch.tensor([False])
    assert match_targets(anchors, anchors[:1], none, **settings).tolist() == [0, IGNORED]
