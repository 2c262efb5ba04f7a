"""RetinaNet to learn from and to use.

The names below are the package's face. Each is imported when it is first used, so that the
command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retinanet_edu.anchors import AnchorGenerator as AnchorGenerator
    from retinanet_edu.boxes import pairwise_iou as pairwise_iou
    from retinanet_edu.checkpoint import load_checkpoint as load_checkpoint
    from retinanet_edu.checkpoint import save_checkpoint as save_checkpoint
    from retinanet_edu.checks import check as check
    from retinanet_edu.coding import decode_boxes as decode_boxes
    from retinanet_edu.coding import encode_boxes as encode_boxes
    from retinanet_edu.data.folder import FolderDataset as FolderDataset
    from retinanet_edu.data.shapes import ShapesDataset as ShapesDataset
    from retinanet_edu.data.voc import VOCDataset as VOCDataset
    from retinanet_edu.detection import postprocess as postprocess
    from retinanet_edu.detection import predict as predict
    from retinanet_edu.evaluation import evaluate as evaluate
    from retinanet_edu.losses import criterion as criterion
    from retinanet_edu.losses import focal_loss as focal_loss
    from retinanet_edu.losses import smooth_l1_loss as smooth_l1_loss
    from retinanet_edu.matching import match_anchors as match_anchors
    from retinanet_edu.model import RetinaNet as RetinaNet
    from retinanet_edu.model import retinanet_resnet18 as retinanet_resnet18
    from retinanet_edu.model import retinanet_resnet34 as retinanet_resnet34
    from retinanet_edu.model import retinanet_resnet50 as retinanet_resnet50
    from retinanet_edu.model import retinanet_resnet101 as retinanet_resnet101
    from retinanet_edu.model import retinanet_resnet152 as retinanet_resnet152
    from retinanet_edu.structures import Detections as Detections
    from retinanet_edu.structures import Predictions as Predictions
    from retinanet_edu.structures import Targets as Targets
    from retinanet_edu.suppression import nms as nms
    from retinanet_edu.training import train as train

_MODULE_OF = {
    "AnchorGenerator": "anchors",
    "pairwise_iou": "boxes",
    "check": "checks",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "decode_boxes": "coding",
    "encode_boxes": "coding",
    "FolderDataset": "data.folder",
    "ShapesDataset": "data.shapes",
    "VOCDataset": "data.voc",
    "postprocess": "detection",
    "predict": "detection",
    "evaluate": "evaluation",
    "criterion": "losses",
    "focal_loss": "losses",
    "smooth_l1_loss": "losses",
    "match_anchors": "matching",
    "RetinaNet": "model",
    "retinanet_resnet18": "model",
    "retinanet_resnet34": "model",
    "retinanet_resnet50": "model",
    "retinanet_resnet101": "model",
    "retinanet_resnet152": "model",
    "Detections": "structures",
    "Predictions": "structures",
    "Targets": "structures",
    "nms": "suppression",
    "train": "training",
}

__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
