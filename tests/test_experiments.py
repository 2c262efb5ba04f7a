"""The claims' experiments: what is trained differs in what it says, and verdicts follow numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from retinanet_edu import Predictions, Targets, criterion, match_anchors, postprocess
from retinanet_edu.boxes import clip_boxes
from retinanet_edu.cli import main
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.shapes import ShapesDataset
from retinanet_edu.demo import shapes_model
from retinanet_edu.evaluation import coco_metrics
from retinanet_edu.experiments import ARMS, BASELINE, CLAIMS, Table, quick, record, run_arms, runner
from retinanet_edu.experiments.claims import imbalance, prior
from retinanet_edu.experiments.variants import (
    ClasswiseRetinaNet,
    CorruptedBoxes,
    classwise_criterion,
    criterion_per_anchor,
    ohem_criterion,
    with_level_subnets,
)
from retinanet_edu.experiments.verdict import HOLDS, IN_PART, NOT_HERE, Finding, verdict
from retinanet_edu.structures import Detections
from retinanet_edu.training import train

RESULTS = sorted((Path(__file__).parents[1] / "data/results").glob("experiment-*.json"))


# The variants.


@pytest.fixture(scope="module")
def batch():
    """Two pictures, what a model says of them, and what is true."""
    model, data = shapes_model(0).eval(), ShapesDataset("val", length=2)
    targets = [data.target(i) for i in range(2)]
    columns = ([t[n] for t in targets] for n in ("boxes", "labels", "difficult"))
    anchors = model.anchors((128, 128))
    noise = torch.Generator().manual_seed(0)
    predictions = Predictions(
        torch.randn(2, len(anchors), 6, generator=noise),
        torch.randn(2, len(anchors), 4, generator=noise) / 10,
        model(torch.zeros(1, 3, 128, 128)).anchors_per_level,
    )
    return predictions, anchors, Targets.from_list(*columns)


def test_subnets_of_each_level_begin_as_the_shared_one_and_go_apart():
    images = torch.rand(2, 3, 128, 128)
    shared, own = shapes_model(1).eval(), with_level_subnets(shapes_model(1)).eval()
    before, after = shared(images), own(images)
    assert torch.allclose(before.class_logits, after.class_logits, atol=1e-6)
    assert torch.allclose(before.box_deltas, after.box_deltas, atol=1e-6)
    first = before.anchors_per_level[0]
    after.class_logits[:, :first].sum().backward()  # of P3 alone
    slopes = [subnet.output.weight.grad for subnet in own.classification_head.subnets]
    assert slopes[0] is not None
    assert slopes[0].abs().max() > 0
    assert all(slope is None or slope.abs().max() == 0 for slope in slopes[1:])


def test_classwise_boxes_are_those_of_each_detections_class():
    model = ClasswiseRetinaNet(shapes_model(0))
    images = torch.rand(1, 3, 128, 128)
    torch.nn.init.normal_(model.classification_head.output.weight, std=0.3)
    torch.nn.init.normal_(model.box_head.output.weight, std=0.1)
    for module in model.modules():  # so that both modes see the same
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    raw, anchors = model.train()(images), model.anchors((128, 128))
    assert raw.box_deltas.shape == (1, len(anchors), 24)
    expanded = model.eval()(images)
    found = postprocess(expanded, model.anchors((128, 128)), [(128, 128)], iou_threshold=1.0)[0]
    assert len(found.scores) == 100
    # Nothing is suppressed, so the detections are the hundred best pairs of anchor and class.
    scores, pair = raw.class_logits.sigmoid().flatten().topk(100)
    anchor, label = pair // 6, pair % 6
    deltas = raw.box_deltas[0].unflatten(-1, (6, 4))[anchor, label]
    boxes = clip_boxes(decode_boxes(deltas, anchors[anchor]), (128, 128))
    assert torch.allclose(found.scores, scores, atol=1e-5)
    near = (found.boxes[:, None] - boxes[None]).abs().amax(dim=2) < 1e-2  # (100, 100)
    near &= found.labels[:, None] == label[None]  # equal scores may come in either order
    assert near.any(dim=0).all()
    assert near.any(dim=1).all()


def test_classwise_loss_reads_the_deltas_of_the_objects_class(batch):
    predictions, anchors, targets = batch
    many = predictions.box_deltas.repeat(1, 1, 6)
    same = classwise_criterion(predictions._replace(box_deltas=many), anchors, targets)
    assert torch.allclose(same.total, criterion(*batch).total)

    wide = many.clone().requires_grad_()
    classwise_criterion(predictions._replace(box_deltas=wide), anchors, targets).box.backward()
    used = wide.grad.unflatten(-1, (6, 4)).abs().sum(dim=-1) > 0  # (B, N, K)
    kept = [~targets.difficult[i, : targets.count[i]] for i in range(2)]
    for i in range(2):
        boxes, labels = targets.boxes[i, : len(kept[i])], targets.labels[i, : len(kept[i])]
        match = match_anchors(anchors, boxes)
        anchor, label = used[i].nonzero(as_tuple=True)
        assert len(anchor)
        assert (match[anchor] >= 0).all()
        assert torch.equal(labels[match[anchor]], label)


def test_hard_examples_are_the_costliest_three_for_each_positive(batch):
    predictions, anchors, targets = batch
    found = ohem_criterion(predictions, anchors, targets, box_loss_weight=2.0)
    sums = []
    for i in range(2):
        keep = slice(0, int(targets.count[i]))
        easy = ~targets.difficult[i, keep]
        match = match_anchors(anchors, targets.boxes[i, keep][easy])
        hidden = match_anchors(anchors, targets.boxes[i, keep][~easy], 0.4, 0.4)
        truth = torch.zeros(len(anchors), 6)
        positive = (match >= 0).nonzero()[:, 0]
        truth[positive, targets.labels[i, keep][easy][match[positive]]] = 1
        cost = F.binary_cross_entropy_with_logits(
            predictions.class_logits[i], truth, reduction="none"
        ).sum(dim=1)
        background = cost[(match == -1) & (hidden < 0)].sort(descending=True).values
        hard = background[: 3 * len(positive)]
        sums.append((cost[positive].sum() + hard.sum()) / len(positive))
    assert torch.allclose(found.classification, torch.stack(sums).mean(), rtol=1e-5)
    assert torch.allclose(found.total, found.classification + 2 * found.box)


def test_the_loss_by_anchors_is_the_sum_by_their_number(batch):
    predictions, anchors, targets = batch
    found = criterion_per_anchor(predictions, anchors, targets, box_loss_weight=3.0)
    whole = criterion(predictions, anchors, targets, normaliser="batch", box_loss_weight=3.0)
    positives = 0
    for i in range(2):
        kept = ~targets.difficult[i, : targets.count[i]]
        match = match_anchors(anchors, targets.boxes[i, : targets.count[i]][kept])
        positives += int((match >= 0).sum())
    share = positives / (2 * len(anchors))
    assert torch.allclose(found.total, whole.total * share, rtol=1e-5)


def test_about_the_share_of_boxes_is_wrong_and_always_the_same_ones():
    data = ShapesDataset("train", length=60)
    wrong = CorruptedBoxes(data, 0.3)
    total = changed = 0
    for index in range(len(wrong)):
        (_, before), (_, after), (_, again) = data[index], wrong[index], wrong[index]
        assert torch.equal(after["boxes"], again["boxes"])
        assert torch.equal(before["labels"], after["labels"])
        boxes = after["boxes"]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= 128).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
        total += len(boxes)
        changed += int((before["boxes"] != boxes).any(dim=1).sum())
    assert 0.2 < changed / total < 0.4
    assert all(
        torch.equal(CorruptedBoxes(data, 0)[i][1]["boxes"], data[i][1]["boxes"]) for i in (0, 9)
    )


def test_a_parabola_is_half_the_square(batch):
    """The arm "l2" is smooth L1 with so large a β that its parabola never ends."""
    keys = ARMS["l2"].loss_settings
    x = torch.linspace(-9, 9, 50)
    ours = F.smooth_l1_loss(x, torch.zeros(50), beta=keys["beta"], reduction="none")
    assert torch.allclose(ours * keys["box_loss_weight"], 5 * x**2 / 2, rtol=1e-5)


def test_each_arm_differs_from_the_baseline_and_from_all_others():
    seen = {json.dumps(arm.settings(), sort_keys=True) for arm in ARMS.values()}
    assert len(seen) == len(ARMS)
    assert not ARMS[BASELINE].settings()
    assert {arm for claim in CLAIMS.values() for arm in claim.arms} == set(ARMS) - {BASELINE}


def test_training_takes_another_loss(tmp_path):
    seen = []

    def noted(*inputs, **settings):
        losses = criterion(*inputs, **settings)
        seen.append((float(losses.total.detach()), settings))
        return losses

    history = train(
        shapes_model(0),
        ShapesDataset("train", length=8),
        output=tmp_path,
        epochs=1,
        batch_size=4,
        loss=noted,
        criterion_settings={"gamma": 1.0},
        progress=False,
    )
    assert [settings for _, settings in seen] == [{"gamma": 1.0}] * 2
    assert history[0]["loss"] == pytest.approx(sum(total for total, _ in seen) / 2)


def test_sizes_are_parted_where_one_says():
    """Of two objects, 10² and 20² pixels, only the second is found."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 70, 70]])
    truth = {"boxes": boxes, "labels": torch.zeros(2, dtype=torch.int64)}
    found = Detections(boxes[1:], torch.tensor([0.9]), torch.zeros(1, dtype=torch.int64))
    usual, _, _ = coco_metrics([found], [truth], 1)
    parted, _, _ = coco_metrics([found], [truth], 1, (150.0, 1000.0))
    assert usual["APs"] == pytest.approx(0.5, abs=0.01)
    assert math.isnan(usual["APm"])
    assert parted["APs"] == 0
    assert parted["APm"] == pytest.approx(1)
    assert math.isnan(parted["APl"])


# Verdicts.


def table(**arms: list[float]) -> Table:
    return Table({name: [{"AP": v / 100} for v in values] for name, values in arms.items()})


def test_the_margin_is_two_standard_errors_of_a_difference():
    # Variances 1 and 4, mean 2.5; of a difference of means of three: 2.5 · 2 / 3.
    t = table(a=[10, 11, 12], b=[20, 22, 24])
    assert t.margin() == pytest.approx(2 * math.sqrt(5 / 3))
    assert t.mean("b") == pytest.approx(22)


def test_only_what_exceeds_the_margin_is_greater():
    t = table(low=[10, 11, 12], near=[12, 13, 14], far=[14, 15, 16])  # margin 1.63
    assert t.greater("far", "low", "").holds
    assert t.greater("near", "low", "").holds
    assert not t.greater("low", "far", "").holds
    assert t.no_worse("far", "low", "").holds
    assert not t.no_worse("low", "near", "").holds
    same = table(one=[10, 12, 14], other=[11, 13, 15])  # margin 3.27
    assert not same.greater("other", "one", "").holds
    assert same.no_worse("one", "other", "").holds


def test_one_seed_carries_nothing():
    t = table(low=[1], high=[90])
    assert not t.greater("high", "low", "").holds


def test_a_verdict_counts_what_holds():
    yes, no = Finding("", True, ""), Finding("", False, "")
    assert verdict([yes, yes]) == HOLDS
    assert verdict([yes, no]) == IN_PART
    assert verdict([no]) == NOT_HERE


# All of it, on next to nothing.


def test_every_claim_is_trained_judged_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "VAL_IMAGES", 6)
    monkeypatch.setattr(imbalance, "_PICTURES", 3)
    monkeypatch.setattr(prior, "_STEPS", 2)
    bench = replace(quick(tmp_path / "runs"), epochs=1, images=16)
    run_arms(bench, ARMS, [0, 1])
    assert capsys.readouterr().out.count("\n") == 2 * len(ARMS)
    run_arms(bench, ARMS, [0, 1])  # nothing is trained again
    assert capsys.readouterr().out == ""
    for claim in CLAIMS.values():
        record(claim, bench, [0, 1], tmp_path / "results")
        text = (tmp_path / f"results/experiment-{claim.name}-quick.json").read_text("utf-8")
        result = json.loads(text)
        assert result["claim"] == claim.says
        assert result["verdict"] in (HOLDS, IN_PART, NOT_HERE)
        assert [arm["name"] for arm in result["arms"]] == [BASELINE, *claim.arms]
        assert all(len(arm["AP"]) == 2 for arm in result["arms"])
    other = replace(bench, learning_rate=1e-3)
    assert other.result(BASELINE, 0) is None  # of other settings


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "VAL_IMAGES", 4)
    bench = replace(quick(tmp_path), epochs=2, images=16)
    whole = runner.run_one(bench, BASELINE, 0)

    def stops(*inputs, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "judge", stops)
    other = replace(bench, runs=tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        runner.run_one(other, BASELINE, 0)
    monkeypatch.undo()
    monkeypatch.setattr(runner, "VAL_IMAGES", 4)
    again = runner.run_one(other, BASELINE, 0)
    assert again["losses"] == whole["losses"]
    assert again["AP"] == whole["AP"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["pyramids", "--quick"], "there is no claim 'pyramids'"),
        (["pyramid"], "say --quick"),
        (["pyramid", "--quick", "--data", "x"], "say --quick"),
        (["all", "--data", "x", "--backbone-weights", "x.pt"], "does not fit resnet34"),
    ],
)
def test_the_command_says_what_it_cannot_do(words, complaint, capsys):
    assert main(["experiment", *words]) == 1
    assert complaint in capsys.readouterr().err


def test_the_command_lists_the_claims(capsys):
    assert main(["experiment", "list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(CLAIMS)


# What is recorded.


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_recorded_verdict_follows_from_the_recorded_numbers(path):
    result = json.loads(path.read_text("utf-8"))
    claim = next(c for c in CLAIMS.values() if path.stem.startswith(f"experiment-{c.name}-"))
    assert result["claim"] == claim.says
    assert result["command"]
    assert result["commit"]
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert all(len(arm["seeds"]) >= 3 for arm in arms.values())
    metrics = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    runs = {
        name: [
            {m: arm[m][i] for m in metrics} | {"parameters": arm["parameters"]}
            for i in range(len(arm["seeds"]))
        ]
        for name, arm in arms.items()
    }
    findings = claim.judge(Table(runs), result["measured"])
    assert [vars(finding) for finding in findings] == result["findings"]
    assert verdict(findings) == result["verdict"]
