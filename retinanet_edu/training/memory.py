"""How a model lies in memory while it is trained."""

from __future__ import annotations

import torch
from torch import nn


def fastest_memory_format(
    model: nn.Module, device: torch.device, image_size: int
) -> torch.memory_format:
    """The order of a model's weights and maps in memory with which it trains fastest.

    Args:
        model: to be trained.
        device: it trains on.
        image_size: the longer side of its images, in pixels.

    Returns:
        `torch.channels_last`, the channels of a pixel side by side. But on a CPU in two cases
        `torch.contiguous_format`: with AVX2 and no wider instructions, for images of more than 256
        pixels, since the gradient of a 3×3 convolution's weights takes up to twice as long the
        other way where maps are large; and for a model with a strided 1×1 convolution of fewer
        than 16 channels, whose gradient writes beyond its memory the other way (oneDNN, issue
        6035).
    """
    if device.type != "cpu":
        return torch.channels_last
    is_slow = torch.backends.cpu.get_cpu_capability() == "AVX2" and image_size > 256
    is_unsafe = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < 16
        for layer in model.modules()
    )
    return torch.contiguous_format if is_slow or is_unsafe else torch.channels_last
