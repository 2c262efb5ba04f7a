"""The backbone: a ResNet, and the three of its maps that the pyramid takes, C3, C4 and C5.

The blocks are torchvision's and so are the names of the parameters, so that its ImageNet weights
load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from retinanet_edu.errors import CheckpointError

# ResNet paper (arXiv 1512.03385), table 1: blocks in each of the four stages.
BLOCKS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


class ResNet(nn.Module):
    """A ResNet without its classifier: the last map of stages 3, 4 and 5.

    Args:
        depth: 18, 34, 50, 101 or 152.
        width: factor on the number of channels everywhere; 0.25 makes a small one.

    Attributes:
        out_channels: channels of C3, C4 and C5.
        frozen_norms: names of the batch norms that keep their loaded statistics and scale.
        frozen_stages: how many of the stem and the four stages are not trained, from the bottom.

    Source:
        He et al., "Deep Residual Learning" (arXiv 1512.03385), table 1; stride 2 sits in the
        3×3 convolution of a bottleneck, as in torchvision.
    """

    def __init__(self, depth: int, width: float = 1.0) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth is one of {', '.join(map(str, BLOCKS))}, not {depth}")
        block, blocks = BLOCKS[depth]
        stem, *stages = (max(1, round(c * width)) for c in (64, 64, 128, 256, 512))
        self.depth = depth
        self.width = width
        self.frozen_norms: tuple[str, ...] = ()
        self.frozen_stages = 0

        self.conv1 = nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        c2, c3, c4, c5 = (planes * block.expansion for planes in stages)
        self.layer1 = _stage(block, stem, stages[0], blocks[0], stride=1)
        self.layer2 = _stage(block, c2, stages[1], blocks[1], stride=2)
        self.layer3 = _stage(block, c3, stages[2], blocks[2], stride=2)
        self.layer4 = _stage(block, c4, stages[3], blocks[3], stride=2)
        self.out_channels = (c3, c4, c5)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W), normalised, to C3, C4, C5 at strides 8, 16 and 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (B, 64, H/4, W/4)
        c2 = self.layer1(x)  # (B, C, H/4, W/4)
        c3 = self.layer2(c2)  # (B, C, H/8, W/8)
        c4 = self.layer3(c3)  # (B, C, H/16, W/16)
        c5 = self.layer4(c4)  # (B, C, H/32, W/32)
        return c3, c4, c5

    @property
    def settings(self) -> dict:
        """What rebuilds this backbone, without its weights; a checkpoint stores it."""
        names = ("depth", "width", "frozen_norms", "frozen_stages")
        return {name: getattr(self, name) for name in names}

    def freeze(self, norms: tuple[str, ...] = (), stages: int = 0) -> None:
        """Hold fast what was pretrained.

        Args:
            norms: names of batch norms, such as "layer1.0.bn1", that keep their statistics and
                their scale and shift. Small detection batches would spoil them.
            stages: how many of stem, layer1 … layer4 are not trained at all, from the bottom.
        """
        self.frozen_norms, self.frozen_stages = tuple(norms), stages
        for name in self.frozen_norms:
            self.get_submodule(name).requires_grad_(False)
        for names in STAGES[:stages]:
            for name in names:
                self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ResNet:
        """As every module's, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_norms:
            self.get_submodule(name).eval()
        return self


def _stage(
    block: type[BasicBlock | Bottleneck], channels: int, planes: int, count: int, stride: int
) -> nn.Sequential:
    """`count` residual blocks; the first one changes resolution and number of channels."""
    out = planes * block.expansion
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out)
        )
    first = block(channels, planes, stride, shortcut)
    return nn.Sequential(first, *(block(out, planes) for _ in range(count - 1)))


def load_backbone_weights(
    backbone: ResNet, weights: str | Path, *, partial: bool = False
) -> tuple[str, ...]:
    """Put pretrained weights into a backbone.

    Args:
        backbone: of the depth that the weights are of, at width 1.
        weights: "imagenet" downloads torchvision's; anything else is the path of a state dict
            with torchvision's names. A classifier (`fc`) in it is passed over.
        partial: accept a file that lacks some of the backbone, and print what stays random.

    Returns:
        names of the tensors that were loaded.

    Raises:
        CheckpointError: the file is missing, damaged or of another network, or lacks tensors
            and `partial` is false.
    """
    state = _backbone_state(backbone.depth, weights)
    own = backbone.state_dict()
    state = {name: t for name, t in state.items() if not name.startswith("fc.")}
    foreign = [name for name in state if name not in own]
    # A file made before torch counted the batches lacks this counter; it is of no use here.
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    shapes = [n for n in state if n in own and state[n].shape != own[n].shape]
    if foreign or shapes or not set(state) & set(own):
        what = f"such as {(foreign + shapes)[0]}" if foreign or shapes else "none of them fits"
        raise CheckpointError(
            f"{weights}: not the weights of a ResNet-{backbone.depth} of width {backbone.width}: "
            f"{len(foreign)} foreign tensors and {len(shapes)} of another shape, {what}"
        )
    if missing:
        parts = ", ".join(sorted({name.split(".")[0] for name in missing}))
        if not partial:
            raise CheckpointError(
                f"{weights}: {len(missing)} tensors of the backbone are not in it ({parts}); if "
                "these may start from random weights, say so: --partial-backbone, or "
                "partial_backbone=True"
            )
        print(f"{weights}: not in this file, left at random weights: {parts}")
    backbone.load_state_dict(state, strict=False)
    return tuple(state)


def freeze_pretrained(backbone: ResNet, loaded: tuple[str, ...], stages: int) -> None:
    """Freeze exactly the batch norms whose statistics were loaded, and the first `stages`."""
    names = dict(backbone.named_modules())
    norms = {name.rpartition(".")[0] for name in loaded if name.endswith("running_mean")}
    backbone.freeze(tuple(name for name in names if name in norms), stages)


def _backbone_state(depth: int, weights: str | Path) -> Mapping[str, Tensor]:
    if weights == "imagenet":
        enum = models.get_model_weights(f"resnet{depth}")
        return enum["IMAGENET1K_V1"].get_state_dict(progress=True, check_hash=True)
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of backbone weights (or say 'imagenet')")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise CheckpointError(f"{path}: not a readable file of weights ({error})") from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path}: not a state dict, that is, a mapping from names to tensors")
    return state
