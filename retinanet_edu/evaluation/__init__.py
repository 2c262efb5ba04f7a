"""Evaluation: how good detections are, as average precision by VOC's and by COCO's rules.

VOC's numbers are counted in `voc`, where every step can be read; COCO's come from COCO's own code.
"""

from retinanet_edu.evaluation.coco import METRICS, coco_metrics
from retinanet_edu.evaluation.report import (
    Evaluation,
    check_classes,
    evaluate,
    evaluate_detections,
)
from retinanet_edu.evaluation.voc import (
    Ledger,
    average_precision,
    match_detections,
    precision_recall,
)

__all__ = [
    "METRICS",
    "Evaluation",
    "Ledger",
    "average_precision",
    "check_classes",
    "coco_metrics",
    "evaluate",
    "evaluate_detections",
    "match_detections",
    "precision_recall",
]
