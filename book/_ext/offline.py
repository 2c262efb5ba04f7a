"""What makes the built pages work from a disk, without a network.

MathJax is the one thing that the theme fetches from elsewhere. It is copied, as
one file without web fonts, from the installed package `sphinx-mathjax-offline`.
It does not go into `_static`: Jupyter Book loads every script there on every
page.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

MATHJAX = "tex-svg-full.js"


def set_defaults(app: Sphinx, config: Config) -> None:
    """Use our MathJax; let pages say the repository's address by a name."""
    # Sphinx puts a script's path after `_static/`.
    config.mathjax_path = f"../mathjax/{MATHJAX}"
    address = config.html_theme_options["repository_url"]
    config.myst_substitutions = {
        **config.myst_substitutions,
        "repository": address,
        "install_in_colab": f"```text\n%pip install git+{address}\n```",
    }


def copy_mathjax(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    found = find_spec("sphinx-mathjax-offline")
    if found is None or found.origin is None:
        raise ExtensionError(
            "sphinx-mathjax-offline is missing: pip install -e '.[book]'"
        )
    source = Path(found.origin).parent / "static" / "mathjax" / MATHJAX
    target = Path(app.outdir) / "mathjax" / MATHJAX
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def drop_thebe(
    app: Sphinx,
    page: str,
    template: str,
    context: dict[str, Any],
    doctree: object,
) -> None:
    """Remove Thebe's scripts: unused, and twice there they are an error."""

    def is_thebe(script: object) -> bool:
        text = f"{script} {getattr(script, 'attributes', '')}"
        return "thebe" in text.lower()

    scripts = context["script_files"]
    context["script_files"] = [s for s in scripts if not is_thebe(s)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_defaults)
    app.connect("builder-inited", copy_mathjax)
    # After all who add scripts.
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
