"""What each chapter of the book imports first: reproducible cells, and the finished source.

The package itself never imports this module; it needs IPython, which the `book` extra installs.
"""

from __future__ import annotations

import inspect
import random
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from IPython.core.getipython import get_ipython
from IPython.display import Markdown, display
from matplotlib_inline.backend_inline import set_matplotlib_formats

FIGURE_DPI = 120
THREADS = 2  # what the book's time limits are measured with
_ROOT = Path(__file__).parents[1]  # of the package


def setup(seed: int = 0) -> None:
    """Fix what would make two runs of a chapter differ: seeds, threads, the format of figures.

    Args:
        seed: of Python's, NumPy's and PyTorch's random numbers.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries draw from the global state)
    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=88)
    matplotlib.rcParams.update(
        {
            "figure.dpi": FIGURE_DPI,
            "figure.figsize": (7.0, 3.4),
            "figure.constrained_layout.use": True,
        }
    )
    if get_ipython() is not None:  # pytest may call this without a kernel
        # Without the name of the program that wrote it, a figure's bytes stay the same.
        set_matplotlib_formats("png", metadata={"Software": None})


def show_source(*objects: Callable[..., object] | type) -> None:
    """Show the finished source of the package's functions or classes, as it is installed.

    Args:
        objects: functions or classes of the package.
    """
    for item in objects:
        path = Path(inspect.getfile(inspect.unwrap(item))).relative_to(_ROOT).as_posix()
        source = textwrap.dedent(inspect.getsource(item)).rstrip()  # a method stands indented
        display(Markdown(f"**`{path}`**\n\n```python\n{source}\n```"))
