"""Checks of `losses`: smooth L1 and focal loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from retinanet_edu.checks.boxes import IN_FLOAT32, boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.slopes import measured_slope

SUM = "the sum is asked for, not the mean: `criterion` divides by the positives later"


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers with one digit behind the point."""
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).round(
        decimals=1
    )


def _wide(*values: Tensor) -> list[Tensor]:
    return [v.float() if v.dtype == torch.float16 else v for v in values]


# --- smooth L1 ------------------------------------------------------------------------------------

LINE = "from β on it is |e| − β/2, so that both parts meet at β/2"
PARABOLA = "below β it is e² / (2β): half the square, over β"
BOTH_PARTS = f"{PARABOLA}; {LINE}"
BETA = "β is more than the limit, it stands in both formulas: e² / (2β) and |e| − β/2"
BOTH_SIGNS = "the error counts whatever its sign: take its absolute value first"


def smooth_l1(predicted: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """torch's, not in half precision."""
    predicted, target = _wide(predicted, target)
    return F.smooth_l1_loss(predicted, target, reduction="sum", beta=beta)


def _smooth_l1_cases() -> Iterator[Case]:
    def by_hand(
        name: str, error: Sequence[float], loss: float, why: str = "", **beta: float
    ) -> Case:
        target = torch.tensor([[1.0, -2.0, 3.0, 0.0]])[:, : len(error)]
        pair = target + torch.tensor([error]), target
        return Case(name, pair, torch.tensor(loss), beta, why=why)

    yield by_hand("errors 0.5 and 3", (0.5, 3.0), 0.125 + 2.5, why=BOTH_PARTS)
    yield by_hand("no error", (0.0, 0.0), 0.0)
    yield by_hand("errors −0.5 and −3", (-0.5, -3.0), 0.125 + 2.5, why=BOTH_SIGNS)
    yield by_hand("an error of exactly 1", (1.0,), 0.5, why=LINE)
    yield by_hand("four errors", (2.0, -0.1, 1.5, 0.2), 1.5 + 0.005 + 1.0 + 0.02, why=BOTH_PARTS)
    yield by_hand(
        "an outlier", (1000.0, 0.0), 999.5, why="an outlier costs its distance, no square"
    )
    yield by_hand("β = ½, errors 0.25 and 3", (0.25, 3.0), 0.0625 + 2.75, beta=0.5, why=PARABOLA)
    yield by_hand("β = 2, error 1.5", (1.5,), 0.5625, beta=2.0, why=PARABOLA)
    yield by_hand("β = 0 is the absolute error", (0.5, -3.0), 3.5, beta=0.0, why="0/0 where e = 0")
    yield Case(
        "no positives", (boxes(), boxes()), torch.tensor(0.0), why="an empty sum is 0, not nan"
    )
    pair = noise(20, 4), noise(20, 4, seed=1)
    yield Case("random", pair, smooth_l1(*pair), rtol=1e-4, why=BOTH_PARTS)
    pair = torch.full((500, 4), 90.0).half(), torch.zeros(500, 4).half()
    yield Case("half precision, a large sum", pair, torch.tensor(2000 * 89.5), why=IN_FLOAT32)
    pair = torch.tensor([[0.3, -0.7, 4.0, -9.0]]), torch.zeros(1, 4)
    slope = torch.tensor([[0.3, -0.7, 1.0, -1.0]]).double()
    yield Case("slopes", pair, slope, slope=(0,), why="the slope is the error, at most 1")
    yield Case("slopes where nothing is wrong", (boxes((1, 2, 3, 4)),) * 2,
               torch.zeros(1, 4).double(), slope=(0,))  # fmt: skip


def _piecewise(below: Callable[[Tensor], Tensor], above: Callable[[Tensor], Tensor]) -> Callable:
    def version(predicted: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
        error = (predicted - target).abs() / beta
        return beta * torch.where(error < 1, below(error), above(error)).sum()

    return version


def _half_square(e: Tensor) -> Tensor:
    return e**2 / 2


_SMOOTH_L1 = Piece(
    "smooth_l1_loss(predicted, target)",
    _smooth_l1_cases,
    "torch.nn.functional.smooth_l1_loss",
    [
        Mistake(SUM, F.smooth_l1_loss),
        Mistake(SUM, lambda p, t, **beta: smooth_l1(p, t, **beta) / max(len(p), 1)),
        Mistake(LINE, _piecewise(_half_square, lambda e: e)),
        Mistake(PARABOLA, _piecewise(lambda e: e**2, lambda e: e - 0.5)),
        Mistake(PARABOLA, _piecewise(lambda e: e**2, lambda e: e)),
        Mistake(BOTH_SIGNS,
                lambda p, t: torch.where(p - t < 1, (p - t) ** 2 / 2, p - t - 0.5).sum()),
        Mistake("that is the L1 loss: it has a parabola below β", lambda p, t: (p - t).abs().sum()),
        Mistake("that is the L2 loss: it has a line from β on", lambda p, t: ((p - t) ** 2).sum()),
        Mistake("that is the L2 loss: it has a line from β on",
                lambda p, t: ((p - t) ** 2 / 2).sum()),
        Mistake("that is Huber's loss: smooth L1 is it divided by β",
                lambda p, t, beta=1.0: beta * smooth_l1(p, t, beta)),
        Mistake(BETA, lambda p, t, beta=1.0: smooth_l1(p, t)),
    ],
)  # fmt: skip

# --- focal loss -----------------------------------------------------------------------------------

STABLE = "log(sigmoid(z)) is −inf at z = −1000: compute from logits, F.logsigmoid or softplus"
CLAMPED = (
    "a probability kept from 0 by clamp or + ε has slope 0 there, and nothing is learned: "
    "compute from logits, F.logsigmoid or softplus"
)
WEIGHT_MOVES = "(1 − p_t)^γ depends on the logit too: do not detach it"
ALPHA = "α = 0.25 weighs the ones, 1 − α = 0.75 the zeros"
MODULATION = "easy answers fade: (1 − p_t)^γ, with p_t the probability of the true answer"


def focal(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "sum",
) -> Tensor:
    """torchvision's, not in half precision."""
    return sigmoid_focal_loss(*_wide(logits, targets), alpha, gamma, reduction)


def focal_of_one(
    z: float,
    target: float,
    alpha: float = 0.25,
    gamma: float = 2.0,
    *,
    weights: tuple[float, float] | None = None,
    modulation: Callable[[float, float], float] = lambda p_t, p: 1 - p_t,
) -> float:
    """−α_t (1 − p_t)^γ log p_t of one ordinary logit; `weights` are those of zeros and ones."""
    p = 1 / (1 + math.exp(-z))
    p_t = p if target == 1 else 1 - p
    alpha_t = (weights or (1 - alpha, alpha))[int(target)]
    return -alpha_t * modulation(p_t, p) ** gamma * math.log(p_t)


def focal_by_loop(logits: Tensor, targets: Tensor, **how: Any) -> Tensor:
    """The sum of focal losses, one number after the other."""
    pairs = zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True)
    return torch.tensor(sum(focal_of_one(*pair, **how) for pair in pairs))


def _focal_cases() -> Iterator[Case]:
    def by_hand(
        name: str, logits: list, targets: list, loss: float, why: str = "", finite: str = ""
    ) -> Case:
        arguments = torch.tensor([logits]), torch.tensor([targets])
        return Case(name, arguments, torch.tensor(loss), why=why, why_finite=finite)

    ln2 = math.log(2)
    four = math.log(4)  # p = 0.8
    easy, hard = 0.2**2 * -math.log(0.8), 0.8**2 * -math.log(0.2)
    yield by_hand("a one at p = 0.8", [four], [1.0], 0.25 * easy, why=MODULATION)
    yield by_hand("a zero at p = 0.8", [four], [0.0], 0.75 * hard, why=MODULATION)
    yield by_hand("a one at p = ½", [0.0], [1.0], 0.25 * 0.25 * ln2, why=ALPHA)
    yield by_hand("a zero at p = ½", [0.0], [0.0], 0.75 * 0.25 * ln2, why=ALPHA)
    yield by_hand("both, and twice", [four] * 4, [1.0, 0.0] * 2, easy / 2 + 1.5 * hard, why=SUM)
    yield by_hand("surely right", [1000.0, -1000.0], [1.0, 0.0], 0.0, "0 · inf is nan", CLAMPED)
    yield by_hand("surely wrong", [-1000.0, 1000.0], [1.0, 0.0], 1000.0, STABLE, CLAMPED)
    yield by_hand("p = 0.00005", [-9.90343755], [1.0], 2.4756115, why=CLAMPED)
    no_anchors = torch.zeros(0, 3), torch.zeros(0, 3)
    yield Case("no anchors", no_anchors, torch.tensor(0.0), why="an empty sum is 0, not nan")
    half = torch.full((500, 4), -100.0).half(), torch.ones(500, 4).half()
    yield Case("half precision, a large sum", half, torch.tensor(50_000.0), why=IN_FLOAT32)
    half = torch.tensor([[-1.5, 0.25]]).half(), torch.tensor([[1.0, 0.0]]).half()
    yield Case("half precision", half, focal(half[0].float(), half[1].float()),
               why="half precision has three digits: compute with .float()")  # fmt: skip
    start = torch.full((49_104, 20), -math.log(99)), torch.zeros(49_104, 20)
    expected = torch.tensor(len(start[0]) * 20 * 0.75 * 0.01**2 * -math.log(0.99))  # 0.740
    yield Case("512 by 512 before training, all background, p = 0.01", start, expected, why=SUM,
               rtol=1e-3)  # fmt: skip
    few = noise(6, 3, scale=3), (noise(6, 3, seed=1) > 0.5).float()
    yield Case("random", few, focal(*few), rtol=1e-4)
    bce = F.binary_cross_entropy_with_logits(*few, reduction="sum")
    half_bce = {"alpha": 0.5, "gamma": 0.0}
    yield Case("γ = 0 and α = ½ is half of cross entropy", few, bce / 2, half_bce, rtol=1e-4)
    for alpha, gamma in ((0.75, 1.0), (0.1, 5.0)):
        expected = focal(*few, alpha=alpha, gamma=gamma)
        settings = {"alpha": alpha, "gamma": gamma}
        yield Case(f"α = {alpha:g}, γ = {gamma:g}", few, expected, settings, rtol=1e-4)
    slope = measured_slope(lambda z: focal(z, few[1].double()), few[0])
    yield Case("slopes", few, slope, slope=(0,), rtol=1e-4, why=WEIGHT_MOVES)
    sure = torch.tensor([[-1000.0, 1000.0, 1000.0, -1000.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    slope = torch.tensor([[-0.25, 0.75, 0.0, 0.0]]).double()
    yield Case("slopes, surely wrong and surely right", sure, slope, slope=(0,), why=CLAMPED)


def _detached_slope(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.double().sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    return torch.where(targets == 1, 0.25, 0.75) * (1 - p_t) ** 2 * (p - targets)


_FOCAL = Piece(
    "focal_loss(logits, targets)",
    _focal_cases,
    "torchvision.ops.sigmoid_focal_loss",
    [
        Mistake("α is exchanged: it weighs the ones with 0.25, the zeros with 0.75",
                lambda z, t, alpha=0.25, gamma=2.0: focal(z, t, alpha=1 - alpha, gamma=gamma)),
        Mistake(ALPHA, partial(focal_by_loop, weights=(0.25, 0.25))),
        Mistake(ALPHA, partial(focal_by_loop, weights=(1.0, 0.25))),
        Mistake("α is missing", partial(focal_by_loop, weights=(1.0, 1.0))),
        Mistake("γ is an exponent of 1 − p_t, not of p_t",
                partial(focal_by_loop, modulation=lambda p_t, p: p_t)),
        Mistake(MODULATION, partial(focal_by_loop, modulation=lambda p_t, p: 1 - p)),
        Mistake(MODULATION, partial(focal_by_loop, modulation=lambda p_t, p: p)),
        Mistake("(1 − p_t) has the exponent γ = 2",
                lambda z, t, alpha=0.25, gamma=2.0: focal(z, t, alpha=alpha, gamma=1.0)),
        Mistake("that is weighted cross entropy: (1 − p_t)^γ is missing",
                lambda z, t, alpha=0.25, gamma=2.0: focal(z, t, alpha=alpha, gamma=0.0)),
        Mistake("the ones alone are counted; the zeros have a loss too",
                lambda z, t, **how: (t * focal(z, t, reduction="none", **how)).sum()),
        Mistake("the zeros alone are counted; the ones have a loss too",
                lambda z, t, **how: ((1 - t) * focal(z, t, reduction="none", **how)).sum()),
        Mistake("the loss is −log: it has the wrong sign", lambda z, t, **how: -focal(z, t, **how)),
        Mistake(SUM, partial(focal, reduction="mean")),
        Mistake(SUM, lambda z, t, **how: focal(z, t, **how) / max(len(z), 1)),
        Mistake("give one number: add the terms up", partial(focal, reduction="none")),
        Mistake("logits come in: take their sigmoid",
                lambda z, t: focal(torch.logit(z.double(), 1e-8), t.double())),
        Mistake("the sigmoid is taken twice", lambda z, t: focal(z.sigmoid(), t)),
        Mistake("α and γ are given, but have no effect", lambda z, t, **how: focal(z, t)),
        Mistake(WEIGHT_MOVES, _detached_slope, of_slope=True),
    ],
)  # fmt: skip

PIECES = {piece.name: piece for piece in (_SMOOTH_L1, _FOCAL)}
