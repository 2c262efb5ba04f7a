"""checks: the package passes its own checks, and a check says what it should say.

That the checks bite is tested beside this, in `test_checks_bite`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import FeaturePyramidNetwork, box_convert, box_iou, nms, sigmoid_focal_loss

from retinanet_edu import checks
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.boxes import box_area, clip_boxes, pairwise_iou
from retinanet_edu.checks import (
    CheckFailed,
    batch_loss,
    check,
    coding,
    curves,
    data,
    detection,
    fpn,
    harness,
    inputs,
    losses,
    matching,
    names,
    slopes,
)
from retinanet_edu.checks import anchors as anchor_checks
from retinanet_edu.checks import boxes as box_checks
from retinanet_edu.checks import evaluation as ledger_checks
from retinanet_edu.checks import heads as head_checks
from retinanet_edu.checks import suppression as nms_checks
from retinanet_edu.checks.words import leaves, nested, short
from retinanet_edu.coding import decode_boxes, encode_boxes
from retinanet_edu.data.transforms import flip
from retinanet_edu.data.voc_xml import parse_voc_xml
from retinanet_edu.detection import postprocess
from retinanet_edu.evaluation import average_precision, match_detections, precision_recall
from retinanet_edu.fpn import FPN
from retinanet_edu.heads import Subnet
from retinanet_edu.losses import criterion, focal_loss, smooth_l1_loss
from retinanet_edu.matching import match_anchors, match_targets
from retinanet_edu.suppression import nms as package_nms
from retinanet_edu.suppression import nms_per_class
from retinanet_edu.training import schedule

pytestmark = pytest.mark.filterwarnings("error")


# --- the package's own functions ------------------------------------------------------------------


def level_anchors(image_size: tuple[int, int], size: float, stride: int) -> Tensor:
    return AnchorGenerator(sizes=[size], strides=[stride])(image_size)


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    return flip(torch.zeros(3, 1, width), {"boxes": boxes})[1]["boxes"]


def top_down(laterals: list[Tensor]) -> list[Tensor]:
    """The package's pyramid, with convolutions that change nothing."""
    channels = laterals[0].shape[1]
    pyramid = FPN([channels] * 3, channels)
    pyramid.laterals = nn.ModuleList(nn.Identity() for _ in range(3))
    pyramid.smooth = nn.ModuleList(nn.Identity() for _ in range(3))
    pyramid.p6 = pyramid.p7 = nn.Identity()
    return pyramid(laterals)[:3]


def flatten_level(out: Tensor, outputs: int) -> Tensor:
    """The package's subnet, with no convolutions."""
    subnet = Subnet(1, 1, outputs, num_convs=0)
    subnet.output = nn.Identity()
    return subnet([out])


def prior_bias(pi: float) -> float:
    return Subnet(1, 2, 3, num_convs=0, prior=pi).output.bias.double().mean().item()


def class_targets(match: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """As the book builds it; in the package it is part of `criterion`."""
    targets = torch.zeros(len(match), num_classes)
    found = match >= 0
    targets[found, labels[match[found]]] = 1
    return targets


def receptive_field(layers: list[tuple[int, int]]) -> int:
    """As the book builds it, but from the last layer back to the pixels."""
    window = 1
    for kernel, stride in reversed(layers):
        window = (window - 1) * stride + kernel
    return window


def coco_targets(content: dict[str, list]) -> tuple[list[str], dict[int, dict[str, Tensor]]]:
    """With pycocotools, which reads the same JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        numbered = [one | {"id": i} for i, one in enumerate(content["annotations"])]
        coco.dataset = content | {"annotations": numbered}
        coco.createIndex()
    ids = sorted(coco.getCatIds())
    targets = {}
    for image in coco.getImgIds():
        found = coco.loadAnns(coco.getAnnIds(imgIds=image))
        corners = torch.tensor([one["bbox"] for one in found], dtype=torch.float32).reshape(-1, 4)
        targets[image] = {
            "boxes": box_convert(corners, "xywh", "xyxy"),
            "labels": torch.tensor([ids.index(one["category_id"]) for one in found]).long(),
            "difficult": torch.tensor([one.get("iscrowd") == 1 for one in found]).bool(),
        }
    return [category["name"] for category in coco.loadCats(ids)], targets


OWN: dict[str, Callable[..., Any]] = {
    "xyxy_to_cxcywh": lambda boxes: box_convert(boxes, "xyxy", "cxcywh"),
    "cxcywh_to_xyxy": lambda boxes: box_convert(boxes, "cxcywh", "xyxy"),
    "box_area": box_area,
    "pairwise_iou": pairwise_iou,
    "clip_boxes": clip_boxes,
    "voc_box": lambda xmin, ymin, xmax, ymax: (xmin - 1, ymin - 1, xmax, ymax),
    "parse_voc_xml": parse_voc_xml,
    "flip_boxes": flip_boxes,
    "receptive_field": receptive_field,
    "top_down": top_down,
    "flatten_level": flatten_level,
    "prior_bias": prior_bias,
    "cell_anchors": AnchorGenerator().cell_anchors,
    "level_anchors": level_anchors,
    "make_anchors": AnchorGenerator(),
    "match_anchors": match_anchors,
    "match_targets": match_targets,
    "class_targets": class_targets,
    "encode_boxes": encode_boxes,
    "decode_boxes": decode_boxes,
    "smooth_l1_loss": smooth_l1_loss,
    "focal_loss": focal_loss,
    "criterion": criterion,
    "nms": package_nms,
    "nms_per_class": nms_per_class,
    "postprocess": postprocess,
    "schedule": schedule,
    "match_detections": match_detections,
    "precision_recall": precision_recall,
    "average_precision": average_precision,
    "average_precision_11_point": lambda r, p: average_precision(r, p, "11-point"),
    "coco_targets": coco_targets,
}


@pytest.mark.parametrize("name", names())
def test_the_package_passes_and_no_case_is_left_out(name: str, capsys: Any) -> None:
    check(OWN[name], name)
    printed = capsys.readouterr().out
    piece = checks._piece(name)
    cases = list(piece.cases())
    sloped = sum(bool(case.slope) for case in cases)
    about = f", {sloped} of them about slopes" if sloped else ""
    assert printed == f"{name}: {len(cases)} cases passed{about}; witness: {piece.witness}\n"


def test_a_function_may_be_given_as_a_method_or_a_module(capsys: Any) -> None:
    class Clip(nn.Module):
        def forward(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
            return clip_boxes(boxes, image_size)

    check(Clip(), "clip_boxes")
    check(Clip().forward, "clip_boxes")
    assert capsys.readouterr().out.count("cases passed") == 2


def test_results_may_be_tuples_where_the_package_has_types_of_its_own(capsys: Any) -> None:
    check(lambda *given: tuple(criterion(*given)), "criterion")
    check(
        lambda *given: tuple(vars(match_detections(*given)).values()),
        "match_detections",
    )
    assert "not tried" in capsys.readouterr().out  # these take no keywords


# --- what a check says ----------------------------------------------------------------------------


def untouched() -> list[Callable]:
    def raises(a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def documented(a: Tensor, b: Tensor) -> Tensor:
        """IoU of every pair."""

    def dots(a: Tensor, b: Tensor) -> Tensor:
        return ...

    return [raises, documented, dots, lambda a, b: None]


@pytest.mark.parametrize("stub", untouched())
def test_an_untouched_stub_is_not_attempted_yet(stub: Callable, capsys: Any) -> None:
    check(stub, "pairwise_iou")
    assert capsys.readouterr().out == "pairwise_iou: not attempted yet\n"


def test_a_stub_that_begins_for_the_reader_is_a_stub(capsys: Any) -> None:
    def begins(a: Tensor, b: Tensor, *, epsilon: float = 0.0) -> Tensor:
        top_left = torch.maximum(a[:, None, :2], b[:, :2])  # noqa: F841
        return ...  # your code

    def with_keyword(a: Tensor, b: Tensor, *, epsilon: float = 0.0) -> None:
        pass

    check(begins, "pairwise_iou")
    check(with_keyword, "pairwise_iou")
    assert capsys.readouterr().out == 2 * "pairwise_iou: not attempted yet\n"


def test_slopes_are_asked_for_where_a_notebook_has_switched_them_off(capsys: Any) -> None:
    with torch.no_grad():
        check(pairwise_iou, "pairwise_iou")
    with pytest.raises(CheckFailed, match="no slope"):
        check(torch.no_grad()(pairwise_iou), "pairwise_iou")
    assert "2 of them about slopes" in capsys.readouterr().out


def test_a_forgotten_return_is_told(capsys: Any) -> None:
    def forgetful(a: Tensor, b: Tensor) -> None:
        top_left = torch.maximum(a[:, None, :2], b[:, :2])
        top_left.clamp(min=0)

    check(forgetful, "pairwise_iou")
    printed = capsys.readouterr().out
    assert printed == "pairwise_iou: not attempted yet; it returns None, is a `return` missing?\n"


def test_none_for_an_edge_is_a_failure() -> None:
    with pytest.raises(CheckFailed, match="no boxes against two") as caught:
        check(lambda a, b: pairwise_iou(a, b) if len(a) else None, "pairwise_iou")
    assert "got         None" in str(caught.value)


def test_the_whole_message_of_a_failure() -> None:
    """As a reader sees it, where neither the result nor the case explains anything."""
    with pytest.raises(CheckFailed) as caught:
        check(lambda a, b: box_iou(a, b).clamp(min=0.25), "pairwise_iou")
    assert str(caught.value) == (
        "pairwise_iou is not right yet: case 3 of 20, one inside the other\n"
        "  input       a = [[0, 0, 10, 10]]  (1, 4) float32\n"
        "              b = [[2, 4, 7, 8]]  (1, 4) float32\n"
        "  got         [[0.25]]  (1, 1) float32\n"
        "  expected    [[0.2]]  (1, 1) float32\n"
        "  difference  1 of 1 numbers, by at most 0.05: 0.25, not 0.2\n"
        "  again       from retinanet_edu import checks; "
        'pairwise_iou(*checks.inputs("pairwise_iou", 3))'
    )
    assert caught.value.case == "one inside the other"
    assert caught.value.hint == ""


def test_of_a_long_result_the_rows_from_the_first_difference_on_are_shown() -> None:
    def wrong(image_size: tuple[int, int]) -> Tensor:
        anchors = AnchorGenerator()(image_size).clone()
        anchors[20:, 1] += 1
        return anchors

    with pytest.raises(CheckFailed) as caught:
        check(wrong, "make_anchors")
    text = str(caught.value)
    assert text.count("… from row 20 on of (45, 4) float32") == 2
    assert "25 of 180 numbers, by at most 1, at [20, 1]:" in text
    # 9 anchors on P3 and on P4; of P5 it is the third: first ratio, last scale.
    assert "there       P5, row 0, column 0, ratio 0.5, scale 1.59" in text


def test_what_the_function_raises_is_told_with_its_line_and_kept_as_the_cause() -> None:
    def my_iou(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    with pytest.raises(CheckFailed) as caught:
        check(my_iou, "pairwise_iou")
    assert "got         RuntimeError: mat1 and mat2 shapes cannot be multiplied" in str(
        caught.value
    )
    assert ": return a @ b)" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(CheckFailed) as caught:
        check(lambda a: a, "pairwise_iou")
    assert caught.value.hint == "it is called as pairwise_iou(a, b)"


def test_not_implemented_for_an_edge_is_a_failure() -> None:
    def partly(a: Tensor, b: Tensor) -> Tensor:
        if len(a) == 0:
            raise NotImplementedError
        return pairwise_iou(a, b)

    with pytest.raises(CheckFailed, match="got         NotImplementedError"):
        check(partly, "pairwise_iou")


def test_writing_into_an_input_is_a_failure_that_names_it() -> None:
    def wipe(a: Tensor, b: Tensor) -> Tensor:
        iou = pairwise_iou(a, b)
        b.zero_()
        return iou

    with pytest.raises(CheckFailed) as caught:
        check(wipe, "pairwise_iou")
    text = str(caught.value)
    assert "got         b = [[0, 0, 0, 0]]" in text
    assert "expected    b = [[5, 0, 15, 10]]" in text
    assert "writes into b" in caught.value.hint

    def relabel(detections: list, truths: list, label: int) -> Any:
        ledger = match_detections(detections, truths, label)
        truths[0]["labels"] += 1
        return ledger

    with pytest.raises(CheckFailed) as caught:
        check(relabel, "match_detections")
    assert "writes into truths[0]['labels']" in caught.value.hint


def test_a_wrong_type_and_a_wrong_shape_are_told() -> None:
    for wrong, words in (
        (lambda a, b: pairwise_iou(a, b).half(), "(1, 1) float16, not (1, 1) float32"),
        (lambda a, b: pairwise_iou(a, b)[0], "shape (1,), not (1, 1)"),
        (lambda a, b: pairwise_iou(a, b).numpy(), "a (1, 1) array of float32, not a tensor"),
        (lambda a, b: pairwise_iou(a, b).tolist(), "a list, not a tensor"),
    ):
        with pytest.raises(CheckFailed) as caught:
            check(wrong, "pairwise_iou")
        assert f"difference  {words}" in str(caught.value)
    with pytest.raises(CheckFailed, match="difference  a str, not a number"):
        check(lambda pi: "-4.6", "prior_bias")


def test_a_keyword_that_the_function_does_not_have_is_not_tried_and_that_is_said(
    capsys: Any,
) -> None:
    check(lambda logits, targets: focal_loss(logits, targets), "focal_loss")
    printed = capsys.readouterr().out
    assert "15 cases passed" in printed
    assert "(3 not tried: your function takes no alpha, gamma)" in printed
    check(lambda *given, **settings: focal_loss(*given, **settings), "focal_loss")
    assert "18 cases passed" in capsys.readouterr().out


def test_settings_are_shown_with_the_input() -> None:
    with pytest.raises(CheckFailed) as caught:
        check(lambda z, t, alpha=0.25, gamma=2.0: focal_loss(z, t, alpha), "focal_loss")
    text = str(caught.value)
    assert "alpha = 0.5\n" in text
    assert "gamma = 0\n" in text
    assert text.endswith('(*checks.inputs("focal_loss", 14), alpha=0.5, gamma=0.0)')


def test_inputs_are_those_of_the_message() -> None:
    a, b = inputs("pairwise_iou", 4)
    assert a.tolist() == [[0, 0, 10, 10], [0, 0, 20, 10]]
    assert pairwise_iou(a, b).tolist() == [[0.5, 0, 1], [0.25, 0.5, 0.5]]
    a.zero_()
    assert inputs("pairwise_iou", 4)[0].any()


def test_a_piece_whose_input_becomes_a_file_shows_its_text_and_nothing_to_repeat() -> None:
    with pytest.raises(CheckFailed) as caught:
        check(lambda path: [], "parse_voc_xml")
    text = str(caught.value)
    assert "path = <annotation><size>" in text
    assert "<object><name>dog</name><difficult>0</difficult><bndbox>" in text
    assert "again" not in text


def test_a_mistake_that_would_have_failed_before_is_not_the_hint() -> None:
    """Both stand for 1 · 1 of the first case; the second case tells them apart."""
    cases = [harness.Case("one", (1,), 1), harness.Case("two", (2,), 4)]
    mistakes = [harness.Mistake("the cube", lambda n: 2 * n**3 - 8 + 2 * (n == 2))]
    mistakes += [harness.Mistake("doubled and one", lambda n: 10 if n == 2 else n)]
    piece = harness.Piece("square(n)", lambda: cases, "a table", mistakes)
    assert harness.run(lambda n: n**2, piece).text == "square: 2 cases passed; witness: a table"
    outcome = harness.run(lambda n: {1: 1, 2: 10}[n], piece)
    assert outcome.failed
    assert outcome.hint == "doubled and one"


def test_an_unknown_name_and_exchanged_arguments_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"'pairwise_ious' \(did you mean 'pairwise_iou'\?\)"):
        check(pairwise_iou, "pairwise_ious")
    with pytest.raises(ValueError, match="there are: xyxy_to_cxcywh, "):
        check(pairwise_iou, "")
    with pytest.raises(ValueError, match="first your function, then its name"):
        check("pairwise_iou", pairwise_iou)  # type: ignore[arg-type]


def test_a_notebook_shows_the_message_and_none_of_our_frames() -> None:
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    outcome = shell.run_cell(
        "from retinanet_edu.checks import check\ncheck(lambda a, b: a[:, :1], 'pairwise_iou')",
        silent=True,
    )
    shown = outcome.error_in_exec._render_traceback_()
    assert len(shown) == 1
    assert shown[0].startswith("CheckFailed: pairwise_iou is not right yet: case 1 of")
    assert "harness.py" not in shown[0]


def test_a_check_leaves_the_random_numbers_alone_and_repeats_itself(capsys: Any) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for name in ("pairwise_iou", "nms", "postprocess", "precision_recall", "criterion"):
        check(OWN[name], name)
        first, second = (list(checks._piece(name).cases()) for _ in range(2))
        assert [c.name for c in first] == [c.name for c in second]
        for one, other in zip(first, second, strict=True):
            for (_, x), (_, y) in zip(
                leaves("", (one.arguments, one.expected)),
                leaves("", (other.arguments, other.expected)),
                strict=True,
            ):
                assert short(x) == short(y)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002


def test_the_list_of_names_comes_without_torch() -> None:
    code = (
        "import sys; from retinanet_edu import checks; "
        "assert len(checks.names()) > 20 and not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def message_of(function: Callable, name: str) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        check(function, name)
    return caught.value


def pops_a_map(laterals: list[Tensor]) -> list[Tensor]:
    found = top_down(laterals)
    laterals.pop()
    return found


def pops_a_layer(layers: list[tuple[int, int]]) -> int:
    window = receptive_field(layers)
    if layers:
        layers.pop(0)
    return window


def adds_difficult(detections: list, truths: list, label: int) -> Any:
    for truth in truths:
        truth.setdefault("difficult", torch.zeros(len(truth["labels"])).bool())
    return match_detections(detections, truths, label)


def pops_iscrowd(content: dict[str, list]) -> Any:
    found = coco_targets(content)
    for one in content["annotations"]:
        one.pop("iscrowd", 0)
    return found


@pytest.mark.parametrize(
    ("name", "function", "given"),
    [
        ("top_down", pops_a_map, "laterals"),
        ("receptive_field", pops_a_layer, "layers"),
        ("match_detections", adds_difficult, "truths"),
        ("coco_targets", pops_iscrowd, "content"),
    ],
)
def test_taking_from_an_input_or_adding_to_it_is_a_failure_that_names_it(
    name: str, function: Callable, given: str
) -> None:
    failure = message_of(function, name)
    assert failure.hint == f"it adds to {given} or takes from it: work on a copy"
    assert f"right, but afterwards {given} has other entries" in " ".join(str(failure).split())


def test_writing_into_an_array_or_a_plain_number_is_a_failure_too() -> None:
    def lifts(recall: np.ndarray, precision: np.ndarray) -> float:
        area = average_precision(recall, precision)
        precision[:] = np.maximum.accumulate(precision[::-1])[::-1]
        return area

    def forgets(ledger: Any) -> Any:
        curve = precision_recall(ledger)
        ledger.scores[:] = 0
        return curve

    def renumbers(content: dict[str, list]) -> Any:
        found = coco_targets(content)
        content["images"][0]["id"] += 1
        return found

    assert "writes into precision" in message_of(lifts, "average_precision").hint
    assert "writes into ledger.scores" in message_of(forgets, "precision_recall").hint
    assert "writes into content['images'][0]['id']" in message_of(renumbers, "coco_targets").hint


def test_nan_in_an_input_is_not_taken_for_another_value() -> None:
    for value in (math.nan, np.array([math.nan]), torch.tensor([math.nan])):
        assert harness._same(value, value)
        assert not harness._same(value, 0 * torch.ones(1))


def test_a_mistake_that_is_right_on_an_input_is_not_the_hint_there() -> None:
    """The result is nearly right, and so is near to what the mistake gives."""
    cases = [harness.Case("one", (1.0,), 1.0, rtol=1e-3, why="of the case")]
    mistakes = [harness.Mistake("the cube", lambda x: x**3)]
    piece = harness.Piece("square(x)", lambda: cases, "a table", mistakes)
    assert harness.run(lambda x: 1.005, piece).hint == "of the case"


def test_a_mistake_that_divides_by_0_is_recognised_without_a_warning() -> None:
    cases = [harness.Case("no objects", (0.0,), math.nan)]
    mistakes = [harness.Mistake("divided by 0", lambda x: np.float64(1) / x)]
    piece = harness.Piece("share(x)", lambda: cases, "a table", mistakes)
    assert harness.run(lambda x: math.inf, piece).hint == "divided by 0"


def test_half_precision_of_the_focal_loss_is_told() -> None:
    def coarse(logits: Tensor, targets: Tensor) -> Tensor:
        if logits.numel() == 2 and logits.dtype == torch.float16:
            return focal_loss(logits, targets) * 1.002
        return focal_loss(logits, targets)

    assert "half precision has three digits" in message_of(coarse, "focal_loss").hint


def test_a_type_error_inside_the_function_is_not_blamed_on_the_call() -> None:
    def my_iou(a: Tensor, b: Tensor) -> Tensor:
        def area(boxes: Tensor) -> Tensor:
            return boxes.prod(dim=1)

        return area(a, b)

    failure = message_of(my_iou, "pairwise_iou")
    assert "takes 1 positional argument" in " ".join(str(failure).split())
    assert "called as" not in failure.hint

    class Iou(nn.Module):
        def forward(self, a: Tensor) -> Tensor:
            return a

    assert message_of(Iou(), "pairwise_iou").hint == "it is called as pairwise_iou(a, b)"


def test_the_line_to_repeat_a_case_can_be_pasted_and_names_the_readers_function() -> None:
    def my_iou(a: Tensor, b: Tensor) -> Tensor:
        return a @ b.T

    line = str(message_of(my_iou, "pairwise_iou")).splitlines()[-1]
    again = "from retinanet_edu import checks; my_iou(*checks.inputs("
    assert line == f'  again       {again}"pairwise_iou", 1))'
    exec(line.strip().removeprefix("again").strip(), {"my_iou": my_iou})


@pytest.mark.parametrize("number", [-1, 0, 21])
def test_a_case_that_there_is_not_is_refused_with_their_number(number: int) -> None:
    with pytest.raises(ValueError, match=f"the cases 1 to 20, there is no case {number}"):
        inputs("pairwise_iou", number)


def test_odd_results_are_failures_and_no_crash() -> None:
    slope = torch.ones(2, requires_grad=True)
    assert "a Ledger" in message_of(lambda *given: (1, 2, 3, "four", None), "match_detections").hint
    assert "arrays" in message_of(lambda *given: 5 * (slope,), "match_detections").hint
    assert "two arrays" in message_of(lambda ledger: (slope, slope), "precision_recall").hint
    assert "two arrays" in message_of(lambda ledger: ("a", "b"), "precision_recall").hint
    assert "not a number" in str(message_of(lambda pi: torch.zeros(2), "prior_bias"))
    assert "got         [0, 0]" in str(message_of(lambda layers: torch.zeros(2), "receptive_field"))
    assert "four numbers" in message_of(lambda *xyxy: 4 * [torch.zeros(2)], "voc_box").hint
    assert short(torch.zeros(40, 0)) == 4 * ["[]"] + ["… the first rows of (40, 0) float32"]


def test_what_is_no_tensor_any_more_is_told() -> None:
    for leave in (Tensor.tolist, Tensor.numpy, lambda iou: iou.sum().item()):
        failure = message_of(lambda a, b, leave=leave: leave(pairwise_iou(a, b)), "pairwise_iou")
        assert failure.hint.startswith("a tensor is asked for: .item(), .tolist() and .numpy()")


def test_keywords_are_those_of_a_modules_forward(capsys: Any) -> None:
    class Focal(nn.Module):
        def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
            return focal_loss(logits, targets)

    check(Focal(), "focal_loss")
    assert "your function takes no alpha, gamma" in capsys.readouterr().out


def test_a_result_in_the_place_of_the_function_is_refused_without_printing_it() -> None:
    words = r"itself is asked for, not a Tensor: check\(my_function, 'box_area'\)$"
    with pytest.raises(ValueError, match=words):
        check(torch.zeros(3), "box_area")  # type: ignore[arg-type]


# --- the cases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_cases_are_named_apart_and_the_first_is_small_and_float32(name: str) -> None:
    piece = checks._piece(name)
    assert piece.name == name
    cases = list(piece.cases())
    assert len({case.name for case in cases}) == len(cases) >= 5
    first = cases[0]
    assert not first.settings
    assert not first.slope
    assert len(first.arguments) == len(piece.argument_names)
    given = [value for _, value in leaves("", first.arguments) if isinstance(value, Tensor)]
    assert all(value.numel() <= 40 for value in given)
    assert not any(value.dtype in (torch.float16, torch.float64) for value in given)


def test_expected_values_are_not_the_packages_own() -> None:
    """Of the package, the checks import the checks and types that carry values, nothing else."""
    types = {"retinanet_edu.structures", "retinanet_edu.evaluation.Ledger"}
    for path in Path(checks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported = [node.module or "", *(f"{node.module}.{n.name}" for n in node.names)]
            elif isinstance(node, ast.Import):
                imported = [n.name for n in node.names]
            else:
                continue
            if imported[0].startswith("retinanet_edu"):
                own = imported[0].startswith("retinanet_edu.checks")
                assert own or imported[0] in types or set(imported[1:]) <= types, (path, imported)


LOOPS: dict[str, Callable[..., Any]] = {
    "box_area": box_checks._area_by_loop,
    "pairwise_iou": box_checks.iou_by_loop,
    "parse_voc_xml": data._parsed,
    "top_down": fpn.top_down_by_loop,
    "flatten_level": head_checks.flatten_by_loop,
    "cell_anchors": anchor_checks.cell_by_loop,
    "level_anchors": anchor_checks.level_by_loop,
    "make_anchors": anchor_checks.image_by_loop,
    "match_anchors": matching.match_by_loop,
    "match_targets": matching.match_targets_by_loop,
    "class_targets": matching.class_targets_by_loop,
    "encode_boxes": coding.encode_by_loop,
    "decode_boxes": coding.decode_by_loop,
    "smooth_l1_loss": losses.smooth_l1,
    "criterion": batch_loss.criterion_by_loop,
    "nms": nms_checks.nms_by_loop,
    "postprocess": detection.postprocess_by_loop,
    "match_detections": ledger_checks.ledger_by_loop,
    "precision_recall": curves.curve_by_loop,
    "average_precision": curves.area_by_loop,
    "average_precision_11_point": curves.points_by_loop,
}
# What a plain loop is not made for.
BEYOND_LOOPS = ("no objects", "forced, 170,000", "surely", "half precision", "random")


@pytest.mark.parametrize("name", LOOPS)
def test_tables_and_loops_agree(name: str) -> None:
    """What was worked out by hand, and the naive loop that stands for random inputs."""
    piece, compared = checks._piece(name), 0
    for case in piece.cases():
        unknown = [k for k in case.settings if k not in harness._keywords(LOOPS[name])]
        if case.slope or unknown or case.name.startswith(BEYOND_LOOPS):
            continue
        value = LOOPS[name](*case.arguments, **case.settings)
        if isinstance(case.expected, Tensor) and not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=torch.float64).reshape(case.expected.shape)
        found = harness.difference(value, case.expected, case.atol, case.rtol, strict=False)
        assert found is None, (case.name, found)
        compared += 1
    assert compared >= 4


def test_loops_agree_with_torchvision() -> None:
    a, b = box_checks.some_boxes(30, 0, 200), box_checks.some_boxes(20, 1, 200)
    torch.testing.assert_close(box_checks.iou_by_loop(a, b).float(), box_iou(a, b))
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    offsets = coder.encode_single(a[:20], b)
    torch.testing.assert_close(coding.encode_by_loop(a[:20], b).float(), offsets)
    offsets[0, 2:] = 9.0  # beyond the clamp
    torch.testing.assert_close(
        coding.decode_by_loop(offsets, b).float(), coder.decode_single(offsets, b)
    )
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=False)
    expected = matcher(box_iou(b, a))
    assert {-1, -2} < set(expected.tolist())
    assert torch.equal(matching.match_by_loop(a, b), expected)
    for seed in range(3):
        boxes = box_checks.some_boxes(40, seed, whole=False)
        scores = torch.rand(40, generator=torch.Generator().manual_seed(seed))
        for threshold in (0.3, 0.7):
            kept = nms_checks.nms_by_loop(boxes, scores, threshold)
            assert torch.equal(kept, nms(boxes, scores, threshold))
    logits, targets = torch.randn(5, 3), torch.eye(5, 3)
    torch.testing.assert_close(
        losses.focal_by_loop(logits, targets, alpha=0.3, gamma=1.5).float(),
        sigmoid_focal_loss(logits, targets, 0.3, 1.5, "sum"),
    )
    maps = [torch.randn(2, 4, *size) for size in ((9, 7), (5, 4), (3, 2))]
    pyramid = FeaturePyramidNetwork([4] * 3, 4)
    pyramid.inner_blocks = pyramid.layer_blocks = nn.ModuleList(nn.Identity() for _ in range(3))
    theirs = pyramid(dict(zip("345", maps, strict=True)))
    for ours, other in zip(fpn.top_down_by_loop(maps), theirs.values(), strict=True):
        torch.testing.assert_close(ours, other)


EXPECTED = torch.tensor([[1.0, 2.0, 4.0, 9.0], [3.0, 5.0, 7.0, 8.0]])


@pytest.mark.parametrize(
    ("got", "expected", "hint"),
    [
        pytest.param(-EXPECTED, EXPECTED, "wrong sign", id="sign"),
        pytest.param(EXPECTED[:, [1, 0, 3, 2]], EXPECTED, "x and y are exchanged", id="x and y"),
        pytest.param(EXPECTED.flip(0), EXPECTED, "their order is not", id="order"),
        pytest.param(EXPECTED / 8, EXPECTED, "it is 0.125 times", id="factor"),
        pytest.param(EXPECTED[:, :2].T, EXPECTED[:, :2], "it is transposed", id="square"),
        pytest.param(EXPECTED.T, EXPECTED, "it is transposed", id="transposed"),
        pytest.param(EXPECTED.flatten(), EXPECTED, "their arrangement is not", id="flat"),
        pytest.param(EXPECTED[None, :1], EXPECTED, "3 axes, 2 are asked for", id="axes"),
        pytest.param(EXPECTED, EXPECTED.sum(), "with .sum()", id="not a number"),
        pytest.param(EXPECTED.log() - math.inf + math.inf, EXPECTED, "nan comes from", id="nan"),
        pytest.param(EXPECTED / 0, EXPECTED, "inf comes from", id="inf"),
        pytest.param(EXPECTED.long(), EXPECTED, "must be float32, they are int64", id="integer"),
        pytest.param(EXPECTED.half(), EXPECTED, "half precision is too coarse", id="half"),
        pytest.param(EXPECTED**2, EXPECTED, "", id="nothing known"),
        pytest.param(EXPECTED[:1], EXPECTED, "", id="a row is missing"),
    ],
)
def test_what_went_wrong_is_read_from_the_result(got: Tensor, expected: Tensor, hint: str) -> None:
    """Where the piece knows no mistake and the case says nothing."""
    cases = [harness.Case("the only one", (0,), expected)]
    outcome = harness.run(lambda n: got, harness.Piece("piece(n)", lambda: cases, "a table"))
    assert outcome.failed
    assert hint in outcome.hint
    assert bool(hint) == bool(outcome.hint)


def test_measured_slopes_are_those_of_autograd() -> None:
    x = torch.tensor([[0.5, -2.0], [3.0, 1.0]], dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        return torch.stack([(x**3).sum(), x[0, 0] * x[1, 1]])

    expected = torch.autograd.grad(slopes.weighted(function(x)), x)[0]
    torch.testing.assert_close(slopes.measured_slope(function, x), expected, atol=1e-8, rtol=1e-8)
    assert expected.tolist() == [[0.75 + 2, 12], [27, 3 + 2 * 0.5]]


def test_values_are_printed_short() -> None:
    assert nested([1.0, [0.1, 1 / 3]]) == "[1, [0.1, 0.333333]]"
    assert nested((8, 16)) == "(8, 16)"
    assert nested((8,)) == "(8,)"
    assert short(torch.tensor(2.5)) == ["2.5  () float32"]
    assert short(torch.zeros(0, 4)) == ["[]  (0, 4) float32"]
    assert short(np.array([0.5, 1])) == ["[0.5, 1]  (2,) array of float64"]
    long = short(torch.arange(400.0).reshape(100, 4), first=98)
    assert long == [
        "[392, 393, 394, 395]",
        "[396, 397, 398, 399]",
        "… from row 98 on of (100, 4) float32",
    ]
    assert short(torch.arange(500)) == [nested(list(range(16))), "… the first rows of (500,) int64"]
    words = "one two " * 40
    assert " ".join(short(words)) == words.strip()
    assert max(map(len, short(words))) <= 66
    assert short("\n".join("abcdefghijklmnop")) == [*"abcdefghijkl", "…"]
