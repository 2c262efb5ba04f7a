"""What no line may part: 128 × 128, 90 %, a formula and its full stop."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NO_BREAK = "\u00a0"
BEFORE = re.compile(r"(?<=\d) (?=[×%])|(?<=×) (?=\d)")
STOP = re.compile(r"[.,;:!?)]+")


def keep_together(app: Sphinx, doctree: nodes.document) -> None:
    """Join by spaces that do not break, and by a rule of the style sheet."""
    for text in [*doctree.findall(nodes.Text)]:
        if not isinstance(text.parent, nodes.literal | nodes.FixedTextElement):
            joined = BEFORE.sub(NO_BREAK, text)
            if joined != text:
                text.parent.replace(text, nodes.Text(joined))
    for formula in [*doctree.findall(nodes.math)]:
        after = formula.next_node(descend=False, siblings=True)
        stop = isinstance(after, nodes.Text) and STOP.match(after)
        if stop:
            both = nodes.inline("", "", classes=["unbroken"])
            formula.replace_self(both)
            both += [formula, nodes.Text(stop[0])]
            after.parent.replace(after, nodes.Text(after[stop.end() :]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", keep_together)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
