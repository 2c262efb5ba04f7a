"""The scripts of explorables go only to the pages that show one.

Jupyter Book loads every script of `_static` on every page, in any order. Here a
page keeps those that its `data-explorable`s name (`NAME.js`, `NAME.data.js`),
and what these share.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

SHARED = {"base", "scene"}
PLACE = re.compile(r'data-explorable="([\w-]+)"')
SCRIPT = re.compile(r"explorables/([\w-]+)(?:\.data)?\.js")


def keep_what_is_shown(
    app: Sphinx,
    page: str,
    template: str,
    context: dict[str, Any],
    doctree: object,
) -> None:
    shown = set(PLACE.findall(context.get("body", "")))
    wanted = shown | SHARED if shown else set()

    def is_wanted(script: object) -> bool:
        name = SCRIPT.search(str(getattr(script, "filename", script)))
        return name is None or name[1] in wanted

    context["script_files"] = [
        s for s in context["script_files"] if is_wanted(s)
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    # After all who add scripts.
    app.connect("html-page-context", keep_what_is_shown, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
