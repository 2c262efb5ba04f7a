"""The doctor: what is wrong with a data set, in order of harm, and how to mend it.

It reads what a strict dataset would refuse, and judges what no single annotation shows: what the
numbers of all boxes mean, whether pictures of training return in validation, and which objects
no anchor can reach.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.data.doctor import boxes, conventions, first_loss, names, pictures, reach
from retinanet_edu.data.doctor.findings import GRADES, Diagnosis, Finding, Place, Table
from retinanet_edu.data.doctor.survey import survey
from retinanet_edu.data.records import Records, read_records

__all__ = ["Diagnosis", "Finding", "Place", "Table", "examine"]

# As model.IMAGE_SIZE, which is not imported for it: the doctor needs no network.
IMAGE_SIZE = 512


def examine(
    root_or_records: str | Path | Records,
    *,
    image_size: int = IMAGE_SIZE,
    anchors: AnchorGenerator | None = None,
    validation: str | Path | Records | None = None,
) -> Diagnosis:
    """Read a whole data set and say what is wrong with it.

    Args:
        root_or_records: a folder of VOC XML, COCO JSON or YOLO text, or what `read_records` made
            of one.
        image_size: the longer side to which training would scale the pictures, in pixels.
        anchors: of the model that would be trained; default those of the paper.
        validation: another data set to validate on. Default: the pictures whose split says so.

    Returns:
        `Diagnosis`: findings from the most harmful to the least.

    Raises:
        DataError: there is no data set in the folder.
    """
    records = _read(root_or_records)
    other = None if validation is None else _read(validation)
    seen = survey(records, other)
    anchors = anchors or AnchorGenerator()
    findings = [
        *pictures.check_files(seen),
        *pictures.check_sizes(seen),
        *pictures.check_copies(seen),
        *pictures.check_empty_images(seen),
        *names.check_names(seen),
        *names.check_counts(seen),
    ]
    is_wrong = list(conventions.check_format(seen))
    findings += is_wrong
    classes = [name for name in dict.fromkeys(seen.names.tolist()) if str(name).strip()]
    if not is_wrong:  # else each box would be a finding
        num_classes = len(seen.records.classes or classes)
        findings += [
            *boxes.check_boxes(seen),
            *boxes.check_doubles(seen),
            *conventions.check_scale(seen),
            *conventions.check_borders(seen),
            *reach.check_reach(seen, image_size, anchors),
            *first_loss.note_first_loss(seen, image_size, anchors, num_classes),
        ]
    findings.sort(key=lambda finding: (GRADES.index(finding.grade), -finding.harm))
    splits = Counter(record.split for record in seen.records.records)
    nowhere = "in no split" if any(splits) else "all"
    return Diagnosis(
        root=str(records.root),
        format=records.format,
        image_size=image_size,
        images={split or nowhere: count for split, count in splits.items()},
        objects=dict(Counter(seen.names.tolist()).most_common()),
        findings=findings,
        survey=seen,
    )


def _read(given: str | Path | Records) -> Records:
    return given if isinstance(given, Records) else read_records(given)
