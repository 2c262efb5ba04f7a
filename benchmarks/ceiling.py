"""The floor under any time of the network: its arithmetic at the speed of one convolution."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from harness import seconds_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from retinanet_edu.model import retinanet_resnet

SIZE = 512


def ceiling(device: torch.device) -> dict[str, Any]:
    """What a picture of 512 pixels costs at least, if no convolution is skipped.

    Args:
        device: where to measure.

    Returns:
        operations of the networks in 10⁹, a multiplication and an addition being two; 10⁹ of them
        a second, of the convolution that a subnet does most, on P3; and milliseconds of both.
    """
    operations = {}
    for depth in (18, 50):
        with torch.device("meta"):
            model = retinanet_resnet(depth, 20, p6_from="P5")
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, SIZE, SIZE))
        operations[depth] = counter.get_total_flops()
    convolution = nn.Conv2d(256, 256, 3, padding=1).to(device, memory_format=torch.channels_last)
    p3 = torch.rand(1, 256, SIZE // 8, SIZE // 8, device=device)
    p3 = p3.to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        convolution(p3)
    with torch.inference_mode():
        times = [seconds_of(lambda: convolution(p3)) for _ in range(60)]
    rate = counter.get_total_flops() / statistics.quantiles(times, n=4)[0]
    return {
        "size": SIZE,
        "gflops_per_second": round(rate / 1e9),
        "gflop": {f"ResNet {depth}": round(n / 1e9, 1) for depth, n in operations.items()},
        "least_ms": {f"ResNet {depth}": round(1e3 * n / rate) for depth, n in operations.items()},
    }
