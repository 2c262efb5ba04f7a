"""See through a model: how its detections came about, and what is wrong with the wrong ones."""

from retinanet_edu.explanation.mistakes import (
    KINDS,
    REASONS,
    Answers,
    Miss,
    Verdict,
    confusion,
    find_misses,
    judge,
)
from retinanet_edu.explanation.picture import Explanation, Judgement, explain

__all__ = [
    "KINDS",
    "REASONS",
    "Answers",
    "Explanation",
    "Judgement",
    "Miss",
    "Verdict",
    "confusion",
    "explain",
    "find_misses",
    "judge",
]
