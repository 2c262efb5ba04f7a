"""The package's docstrings, as the API reference reads them.

They mark code as Markdown does, by one backtick on each side. Sphinx reads
docstrings as reStructuredText, which wants two.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w)?)")


def double_backticks(
    app: Sphinx,
    what: str,
    name: str,
    item: object,
    options: object,
    lines: list[str],
) -> None:
    def double(found: re.Match[str]) -> str:
        # "`Box`es" needs an invisible end.
        return f"``{found[1]}``" + (r"\ " if found[2] else "")

    lines[:] = CODE.sub(double, "\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    # Before Napoleon, which turns sections into fields.
    app.connect("autodoc-process-docstring", double_backticks, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
