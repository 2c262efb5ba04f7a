"""Findings: what the doctor says, how bad it is, where it is, and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from retinanet_edu.data.doctor.survey import Survey

Grade = Literal["error", "warning", "note"]
GRADES: tuple[Grade, ...] = ("error", "warning", "note")
_SHOWN = 5  # places of a finding that the text names


class Place(NamedTuple):
    """Where something is wrong.

    Attributes:
        file: of the annotation or the picture.
        says: what is wrong there, in a few words.
        objects: numbers of the objects in the annotation, from 1; none where it is the whole file.
        record: index of the picture among the records; −1 where there is none to show.
    """

    file: str
    says: str = ""
    objects: tuple[int, ...] = ()
    record: int = -1

    def __str__(self) -> str:
        objects = f": object {', '.join(map(str, self.objects))}" if self.objects else ""
        return f"{self.file}{objects}{f': {self.says}' if self.says else ''}"


class Table(NamedTuple):
    """Numbers behind a finding.

    Attributes:
        title: what it shows.
        head: names of the columns.
        rows: as many cells each.
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong.

    Attributes:
        grade: "error", training would be wrong; "warning", it would be worse than it could be;
            "note", good to know.
        kind: a short name that stays the same, for programs.
        what: is wrong, a sentence.
        remedy: how to mend it.
        count: how many files, objects or classes; of classes, the places are their objects.
        places: where.
        harm: orders findings of a grade, the greater the sooner.
        tables: numbers behind it.
        is_small: the objects need to be looked at from near.
    """

    grade: Grade
    kind: str
    what: str
    remedy: str
    count: int
    places: Sequence[Place] = ()
    harm: float = 0.0
    tables: Sequence[Table] = ()
    is_small: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "grade": self.grade,
            "kind": self.kind,
            "what": self.what,
            "remedy": self.remedy,
            "count": self.count,
            "places": [
                {"file": place.file, "objects": list(place.objects), "says": place.says}
                for place in self.places
            ],
            "tables": [
                {
                    "title": table.title,
                    "rows": [dict(zip(table.head, row, strict=True)) for row in table.rows],
                }
                for table in self.tables
            ],
        }

    def __str__(self) -> str:
        shown = [f"    {place}" for place in self.places[:_SHOWN]]
        more = len(self.places) - len(shown)
        if more > 0:
            shown.append(f"    and {more} more places")
        head = f"{self.grade.upper()} {self.kind}: {self.what}"
        return "\n".join([head, f"  What to do: {self.remedy}", *shown])


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found in a data set.

    Attributes:
        root: the folder.
        format: "voc", "coco" or "yolo".
        image_size: the longer side for which it was judged, in pixels.
        images: how many there are, by split; "all" where there is none.
        objects: how many there are, by class.
        findings: errors first, in order of harm.
        survey: all that was read, for the pictures of the page.
    """

    root: str
    format: str
    image_size: int
    images: dict[str, int]
    objects: dict[str, int]
    findings: list[Finding]
    survey: Survey = field(repr=False)

    def graded(self, grade: Grade) -> list[Finding]:
        """The findings of a grade."""
        return [finding for finding in self.findings if finding.grade == grade]

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of a kind, such as "inverted"."""
        return [finding for finding in self.findings if finding.kind == kind]

    @property
    def summary(self) -> str:
        """One line: how many of each grade, in how much data."""
        counts = ", ".join(
            f"{len(found)} {grade}{'' if len(found) == 1 else 's'}"
            for grade in GRADES
            for found in [self.graded(grade)]
        )
        images = " + ".join(
            f"{count}{'' if split == 'all' else f' {split}'}"
            for split, count in self.images.items()
        )
        return (
            f"{images or 0} images, {sum(self.objects.values())} objects of "
            f"{len(self.objects)} classes: {counts}"
        )

    def __str__(self) -> str:
        head = f"{self.root} ({self.format}), judged at {self.image_size} pixels"
        return "\n\n".join(["\n".join([head, self.summary]), *map(str, self.findings)])

    def to_json(self) -> str:
        """All of it for programs, places without limit.

        Returns:
            the content of the file.
        """
        content = {
            "root": self.root,
            "format": self.format,
            "image_size": self.image_size,
            "images": self.images,
            "objects": self.objects,
            "findings": [finding.as_dict() for finding in self.findings],
        }
        return json.dumps(content, indent=1) + "\n"

    def to_html(self) -> str:
        """All of it for people: one page that needs nothing else, with pictures.

        Returns:
            the content of the file, to be written as UTF-8.
        """
        from retinanet_edu.data.doctor.sheet import diagnosis_page

        return diagnosis_page(self)
