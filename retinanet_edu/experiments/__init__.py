"""What is said about RetinaNet, put to the test: small on a laptop, whole on a GPU.

A claim compares a baseline with arms that differ from it in one thing each. The arms are trained
once a seed, whichever claims ask for them.
"""

from retinanet_edu.experiments.arms import ARMS, BASELINE, Arm
from retinanet_edu.experiments.claim import Claim, record
from retinanet_edu.experiments.claims import CLAIMS
from retinanet_edu.experiments.figures import plot_experiment
from retinanet_edu.experiments.runner import Bench, quick, run_arms, whole
from retinanet_edu.experiments.verdict import Finding, Table, verdict

__all__ = [
    "ARMS",
    "BASELINE",
    "CLAIMS",
    "Arm",
    "Bench",
    "Claim",
    "Finding",
    "Table",
    "plot_experiment",
    "quick",
    "record",
    "run_arms",
    "verdict",
    "whole",
]
