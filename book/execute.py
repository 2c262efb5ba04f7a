"""Run notebooks of the book again and store what they print.

    python book/execute.py [NOTEBOOK …]     without one: all of the book's

The kernel is the Python that runs this script. Nothing that changes from run to
run is stored, so a second run changes no byte. A notebook with a failing cell
is left as it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbformat import NotebookNode

BOOK = Path(__file__).parent
CELL_TIMEOUT = 120  # seconds
# Nobody's version of Python or name of an environment belongs in the book.
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
CELL_METADATA = ("tags", "mystnb")


def trim(notebook: NotebookNode) -> None:
    """Keep of the metadata only what readers or tools need."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        kept = {k: v for k, v in cell.metadata.items() if k in CELL_METADATA}
        cell.metadata = nbformat.from_dict(kept)
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = NotebookNode()


def execute(path: Path) -> float:
    """Run one notebook and write it back; the seconds that it took."""
    notebook = nbformat.read(path, as_version=4)
    # With no folder to search, what is left is this interpreter's own kernel.
    kernels = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_spec_manager=kernels)
    client = NotebookClient(
        notebook,
        km=manager,
        extra_arguments=["--log-level=ERROR"],
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    start = time.perf_counter()
    client.execute()
    trim(notebook)
    nbformat.write(notebook, path)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "notebooks", nargs="*", type=Path, default=sorted(BOOK.glob("*.ipynb"))
    )
    failed = 0
    for path in parser.parse_args().notebooks:
        try:
            print(f"{path.name:32} {execute(path):5.1f} s", flush=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed += 1
            print(
                f"{path.name}: left as it was\n{error}",
                file=sys.stderr,
                flush=True,
            )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
