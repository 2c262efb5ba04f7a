"""Classes: misspelled, missing, rare, without a name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher

import numpy as np

from retinanet_edu.data.doctor.findings import Finding, Table
from retinanet_edu.data.doctor.survey import Survey
from retinanet_edu.data.voc import VOC_CLASSES

# So few objects to learn from make a class's AP poor, so few to validate on make it noise: one
# object more or less found moves it by a tenth.
RARE, RARE_IN_VALIDATION = 100, 10

_NEAR = 0.8  # difflib's ratio; "aeroplan" to "aeroplane" has 0.94, "cat" to "car" 0.67
_COMPARED = 300  # names, the commonest, each with each
_RARER = 0.5  # a misspelled name occurs at most this often, in parts of the right one


def check_names(survey: Survey) -> Iterator[Finding]:
    """Names that are none, not in the list, or another name written differently.

    Args:
        survey: of the data set.

    Returns:
        findings "no-class", "unknown-class", "spelling" and "like-another".
    """
    names = survey.names
    counts = Counter(names.tolist())
    nameless = np.array([not str(name).strip() for name in names], dtype=bool)
    if nameless.any():
        yield Finding(
            "error", "no-class",
            f"{nameless.sum()} objects have no class",
            "name them or remove them.",
            int(nameless.sum()), survey.places(nameless), harm=0.8,
        )  # fmt: skip
    listed = survey.records.classes
    if listed is not None:
        unknown = ~nameless & ~np.isin(names, list(listed))
        if unknown.any():
            yield Finding(
                "error", "unknown-class",
                f"{unknown.sum()} objects are of classes that the list of {len(listed)} does not "
                f"have: {_some(sorted(set(names[unknown])))}",
                "add the classes to the list, or correct the objects; a model has a place for the "
                "listed ones alone.",
                int(unknown.sum()), survey.places(unknown), harm=0.9,
            )  # fmt: skip
    alike: dict[str, str] = {}
    near: dict[str, str] = {}
    first: dict[str, str] = {}  # the commonest name of each spelling
    for name, _ in counts.most_common():
        if name.strip() and first.setdefault(_plain(name), name) != name:
            alike[name] = first[_plain(name)]
    common = list(first.values())[:_COMPARED]
    for rank, name in enumerate(common):
        for other in common[:rank]:
            if name not in near and _is_slip(name, other, counts):
                near[name] = other
    if alike:
        yield _spelling(survey, alike, "spelling", "error", 0.65)
    if near:
        yield _spelling(survey, near, "like-another", "warning", 0.6)


def _spelling(survey: Survey, twins: dict[str, str], kind: str, grade: str, harm: float) -> Finding:
    which = np.isin(survey.names, list(twins))
    pairs = [f"{name!r} and {other!r}" for name, other in sorted(twins.items())]
    how = "differ only in case, spaces or hyphens" if kind == "spelling" else "are nearly the same"
    return Finding(
        "error" if grade == "error" else "warning", kind,
        f"names of classes {how}: {_some(pairs)}; each name is a class of its own",
        "write the rarer name like the other one" + ("." if kind == "spelling" else ", if it is "
        "a slip; nothing, if both are meant."),
        int(which.sum()), survey.places(which), harm,
    )  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _is_slip(name: str, other: str, counts: Counter[str]) -> bool:
    """Whether a name is likely to be a slip for a commoner one."""
    a, b = _plain(name), _plain(other)
    # "speed30" and "speed80" are two things, and so are two names of VOC.
    if re.sub(r"\d", "", a) == re.sub(r"\d", "", b) or {name, other} <= set(VOC_CLASSES):
        return False
    return counts[name] <= _RARER * counts[other] and SequenceMatcher(None, a, b).ratio() >= _NEAR


def _some(words: list[str], most: int = 6) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more


def check_counts(survey: Survey) -> Iterator[Finding]:
    """Classes without objects, or with few.

    Args:
        survey: of the data set. Difficult objects do not count: they are not learned.

    Returns:
        findings "missing-class", "unlearned-class", "unvalidated-class", "rare-class" and
        "rare-in-validation".
    """
    validates = survey.is_validation[survey.image]
    train, val = (
        Counter(survey.names[~survey.difficult & side].tolist()) for side in (~validates, validates)
    )
    every = [name for name in dict.fromkeys(survey.names.tolist()) if str(name).strip()]
    missing = [name for name in survey.records.classes or () if name not in every]
    if missing:
        yield Finding(
            "warning", "missing-class",
            f"{len(missing)} listed classes have no object: {_some(missing)}",
            "annotate some, or take them off the list.",
            len(missing), harm=0.45,
        )  # fmt: skip
    has_both = bool(train and val)
    unlearned = sorted(name for name in every if has_both and not train[name])
    if unlearned:
        which = np.isin(survey.names, unlearned)
        yield Finding(
            "warning", "unlearned-class",
            f"{len(unlearned)} classes have no object in training, so none can be found: "
            f"{_some(unlearned)}",
            "split again, stratified, or leave them out.",
            len(unlearned), survey.places(which), harm=0.5,
        )  # fmt: skip
    unseen = sorted(name for name in every if has_both and not val[name])
    if unseen:
        yield Finding(
            "warning", "unvalidated-class",
            f"{len(unseen)} classes have no object in validation, so they have no AP: "
            f"{_some(unseen)}",
            "split again, stratified.",
            len(unseen), survey.places(np.isin(survey.names, unseen)), harm=0.35,
        )  # fmt: skip
    for side, least, kind, words, harm in (
        (train, RARE, "rare-class", "to learn from, and will be found less well", 0.25),
        (val, RARE_IN_VALIDATION, "rare-in-validation",
         "to validate on, so chance decides on their AP", 0.2),
    ):  # fmt: skip
        rare = sorted((count, name) for name, count in side.items() if count < least and name)
        if rare:
            few = {name for _, name in rare}
            on_side = validates == (side is val)
            yield Finding(
                "warning", kind,
                f"of {len(every)} classes {len(rare)} have fewer than {least} objects {words}: "
                f"{_some([f'{name} ({count})' for count, name in rare])}",
                "annotate more of them; if that cannot be, judge the other classes apart.",
                len(rare), survey.places(np.isin(survey.names, list(few)) & on_side), harm,
                tables=[Table("objects by class, difficult ones left out", ("class", "objects"),
                              side.most_common()[::-1])],
            )  # fmt: skip
