"""Long runs that ought to be boring: training is killed, again and again, and files are damaged.

`make soak` runs this and records it; tests/test_soak.py runs a small sample.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from fuzzing import READERS, fuzz

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "data" / "results" / "soak.json"

# A run of a few seconds. Each file takes its time, so that many kills fall on a half-written one.
RUN = """
import sys, time
sys.path.insert(0, {tests!r})
import torch
from test_training import Squares, small_model
from retinanet_edu import train
torch.set_num_threads(1)
save = torch.save
def slowly(content, file, **settings):
    save(content, file, **settings)
    time.sleep(0.05)
    file.flush()
    time.sleep(0.05)
torch.save = slowly
print("begin", flush=True)
train(small_model(), Squares(12), Squares(3), output={output!r}, epochs={epochs}, batch_size=2,
      workers={workers}, progress=False, device="cpu", resume=True)
"""
WAYS = {"one process": (1, 0), "loading processes": (1, 2), "torchrun": (2, 0)}


def start(output: Path, way: str, epochs: int) -> subprocess.Popen:
    """A run that begins or goes on."""
    processes, workers = WAYS[way]
    script = output.with_suffix(".py")
    script.write_text(
        RUN.format(tests=str(ROOT / "tests"), output=str(output), epochs=epochs, workers=workers)
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def begun(run: subprocess.Popen) -> None:
    """Wait until a run has imported what it needs."""
    assert run.stdout is not None
    run.stdout.readline()


def finish(run: subprocess.Popen) -> float:
    """Seconds that a run works which is left alone."""
    begun(run)
    start = time.monotonic()
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors.decode()[-3000:]
    return time.monotonic() - start


def kill(run: subprocess.Popen) -> None:
    """At once, with all that it started: torchrun's processes are no group of its own."""
    script = run.args[-1].encode()  # type: ignore[index,union-attr]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if script in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
    run.communicate()


def kill_again_and_again(
    folder: Path, way: str, kills: int, epochs: int, seed: int = 0
) -> dict[str, object]:
    """A run that is killed at random moments ends with the weights of one that was not.

    Args:
        folder: for both runs.
        way: of `WAYS`.
        kills: with SIGKILL, so that nothing can be tidied up.
        epochs: of the run.
        seed: of the moments.

    Returns:
        how many kills found the run at work, after which epochs, and how many left half a file.
    """
    length = finish(start(folder / "whole", way, epochs))
    draw, killed = random.Random(seed), folder / "killed"
    done, halves, at_work = [], 0, 0
    for _ in range(kills):
        run = start(killed, way, epochs)
        begun(run)
        # In all half of its length: the machine may have been busier when that was measured.
        time.sleep(draw.uniform(0, length / kills))
        at_work += run.poll() is None
        kill(run)
        halves += len([*killed.glob(".*.pt.*")]) if killed.is_dir() else 0
        done.append(_epochs(killed))
    finish(start(killed, way, epochs))
    assert done == sorted(done), f"a finished epoch was lost: {done}"
    assert at_work, "the run was over before it was killed"
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(f / name, weights_only=True) for f in (folder / "whole", killed))
        assert a["weights"].keys() == b["weights"].keys()
        assert all(torch.equal(a["weights"][n], b["weights"][n]) for n in a["weights"]), name
    metrics = [(f / "metrics.jsonl").read_text() for f in (folder / "whole", killed)]
    assert metrics[0] == metrics[1]
    assert not [*killed.glob(".*.pt.*")], "what a kill left behind was not tidied up"
    return {"way": way, "kills": kills, "at work": at_work, "epochs done": done, "halves": halves}


def _epochs(folder: Path) -> int:
    """Epochs that the run has finished, by its checkpoint, which must be whole."""
    if not (folder / "last.pt").is_file():
        return 0
    return len(torch.load(folder / "last.pt", weights_only=True)["training"]["history"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--files", type=int, default=100_000, help="damaged ones, of all readers")
    arguments = parser.parse_args()
    from retinanet_edu.provenance import provenance

    result: dict[str, Any] = provenance() | {"kills": [], "files": []}
    folder = Path(tempfile.mkdtemp())
    try:
        for way in WAYS:
            (folder / way).mkdir()
            one = kill_again_and_again(folder / way, way, arguments.kills, arguments.epochs)
            result["kills"].append(one)
            print(one, flush=True)
        for number, reader in enumerate(READERS):
            files = fuzz(folder / str(number), reader, arguments.files // len(READERS))
            result["files"].append(files)
            print(files, flush=True)
    finally:
        shutil.rmtree(folder)
    RECORD.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
