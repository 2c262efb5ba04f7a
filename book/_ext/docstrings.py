"""The package's docstrings, as the API reference reads them.

They mark code as Markdown does, by one backtick on each side. Sphinx reads
docstrings as reStructuredText, which wants two.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

# "## name" and then its example, as a doctest.
EXAMPLES = dict(
    re.findall(
        r"^## (\w+)\n\n(.*?)(?=\n## |\Z)",
        Path(__file__).with_name("examples.txt").read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
)
PREFIX = re.compile(r"~?\b(typing|collections\.abc|pathlib|torch)\.(?=[A-Z])|~")
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


def add_example(
    app: Sphinx,
    what: str,
    name: str,
    item: object,
    options: object,
    lines: list[str],
) -> None:
    """What is on the package's face has an example."""
    example = EXAMPLES.get(name.rpartition(".")[2])
    if example and what in ("function", "class"):
        lines += [
            "",
            "Example:",
            *(f"    {line}" for line in example.strip().split("\n")),
            "",
        ]


def shorten_signature(
    app: Sphinx,
    what: str,
    name: str,
    item: object,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """`Any` for `typing.Any`; an ellipsis where a default is made anew."""
    short = (
        text and PREFIX.sub("", text).replace("<factory>", "…")
        for text in (signature, returned)
    )
    return next(short), next(short)


def skip_fields(
    app: Sphinx,
    what: str,
    name: str,
    item: object,
    skip: bool,
    options: object,
) -> bool | None:
    """A named tuple's fields stand among its attributes already."""
    is_field = (item.__doc__ or "").startswith("Alias for field number")
    return True if is_field else None


def setup(app: Sphinx) -> dict[str, bool]:
    # Before Napoleon, which turns sections into fields.
    app.connect("autodoc-process-docstring", double_backticks, priority=100)
    app.connect("autodoc-process-docstring", add_example, priority=110)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
