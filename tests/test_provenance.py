"""provenance: what a file of results says about its making."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
import torchvision

from retinanet_edu import provenance

ROOT = Path(__file__).parents[1]


def test_it_is_true_and_ready_for_json(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/retinanet-edu", "train", "--data", "a b"])
    made = provenance.provenance()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["command"] == "retinanet-edu train --data 'a b'"  # can be pasted, names no home
    assert made["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert made["versions"]["torchvision"] == torchvision.__version__.partition("+")[0]
    assert made["hardware"]["threads"] == torch.get_num_threads()
    assert made["hardware"]["processor"]
    assert made["hardware"]["instructions"] in torch.__config__.show()
    assert (made["hardware"]["gpu"] is None) == (not torch.cuda.is_available())


def test_the_commit_is_that_of_the_checkout_or_none(monkeypatch, tmp_path) -> None:
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert head.startswith(provenance.provenance()["commit"].rstrip("+"))
    # An installed package lies in no checkout, and must not name another project's commit.
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "retinanet_edu" / "provenance.py"))
    assert provenance.provenance()["commit"] is None
