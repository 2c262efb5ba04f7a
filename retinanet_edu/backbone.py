"""The backbone: a ResNet, and the three of its maps that the pyramid takes, C3, C4 and C5.

The blocks are torchvision's and so are the names of the parameters, so that its ImageNet weights
load as they are.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
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
_FOLDER = 0x10  # this bit of an entry in a zip archive says that it is one


class ResNet(nn.Module):
    """A ResNet without its classifier: the last map of stages 3, 4 and 5.

    Args:
        depth: 18, 34, 50, 101 or 152.
        width: factor on the number of channels everywhere; 0.25 makes a small one.

    Attributes:
        out_channels: channels of C3, C4 and C5.
        frozen_norms: names of the batch norms that keep their loaded statistics and scale.
        frozen_stages: how many of the stem and the four stages are not trained, from the bottom.

    Raises:
        ValueError: there is no such depth, or `width` is not positive.

    Source:
        He et al., "Deep Residual Learning" (arXiv 1512.03385), table 1; stride 2 sits in the
        3×3 convolution of a bottleneck, as in torchvision.
    """

    def __init__(self, depth: int, width: float = 1.0) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth is one of {', '.join(map(str, BLOCKS))}, not {depth}")
        if not width > 0:
            raise ValueError(f"width is a factor greater than 0, not {width}")
        block, blocks = BLOCKS[depth]
        stem, *stages = (max(1, round(c * width)) for c in (64, 64, 128, 256, 512))
        self.depth = depth
        self.width = width
        self.frozen_norms: tuple[str, ...] = ()
        self.frozen_stages = 0

        self.conv1 = nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = _Norm(stem)
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
        """Hold fast what was pretrained, and let go of all else.

        Args:
            norms: names of batch norms, such as "layer1.0.bn1", that keep their statistics and
                their scale and shift. Small detection batches would spoil them.
            stages: how many of stem, layer1 … layer4 are not trained at all, from the bottom. Their
                batch norms still follow the batches unless they are among `norms`.

        Raises:
            ValueError: there are not so many stages.
            AttributeError: there is no such norm.
        """
        if not 0 <= stages <= len(STAGES):
            raise ValueError(f"0 to {len(STAGES)} stages can be frozen, not {stages}")
        for name in norms:
            self.get_submodule(name)  # before anything is changed
        self.frozen_norms, self.frozen_stages = tuple(norms), stages
        self.requires_grad_(True)
        for name in self.frozen_norms:
            self.get_submodule(name).requires_grad_(False)
        for names in STAGES[:stages]:
            for name in names:
                self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def fold_norms(self) -> None:
        """Put each batch norm into the convolution before it, for inference alone.

        With its statistics fixed, a norm is a factor and a shift a channel, and so is the bias of
        a convolution and the scale of its kernels: one pass over the map less for each.
        """
        self.eval()
        for module in self.modules():
            layers = list(module.named_children())
            for (name, layer), (after, norm) in pairwise(layers):
                # In the blocks of a ResNet the norm that is named next is the one that runs next.
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(module, name, fuse_conv_bn_eval(layer, norm))
                    setattr(module, after, nn.Identity())

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
            nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False), _Norm(out)
        )
    first = block(channels, planes, stride, shortcut, norm_layer=_Norm)
    others = (block(out, planes, norm_layer=_Norm) for _ in range(count - 1))
    return nn.Sequential(first, *others)


class _Norm(nn.BatchNorm2d):
    """A batch norm that, where nothing of it is trained, is a factor and a shift a channel.

    It writes them over the map that it is given, since nobody asks a convolution for its own
    output again. Large maps are slow to come by: on a CPU that costs more than to compute them.
    """

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training or self.weight.requires_grad or mean is None or variance is None:
            return super().forward(x)
        scale = self.weight * torch.rsqrt(variance + self.eps)  # (C,)
        shift = self.bias - mean * scale
        # Under autocast the map is in half precision: in two precisions at once a CPU is slow.
        scale, shift = scale.to(x.dtype)[:, None, None], shift.to(x.dtype)[:, None, None]
        return x.mul_(scale).add_(shift)


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
            and `partial` is false, or the download fails. The backbone is left as it was.
    """
    state = _backbone_state(backbone.depth, weights)
    own = backbone.state_dict()
    state = {name: t for name, t in state.items() if not name.startswith("fc.")}
    foreign = [name for name in state if name not in own]
    missing = [name for name in _needed(backbone) if name not in state]
    shapes = [n for n in state if n in own and state[n].shape != own[n].shape]
    if foreign or shapes or not set(state) & set(own):
        what = f"such as {(foreign + shapes)[0]}" if foreign or shapes else "none of them fits"
        raise CheckpointError(
            f"{weights}: not the weights of a ResNet-{backbone.depth} of width {backbone.width}: "
            f"{len(foreign)} foreign tensors and {len(shapes)} of another shape, {what}"
        )
    if missing:
        whole = Counter(name.split(".")[0] for name in _needed(backbone))
        lacking = Counter(name.split(".")[0] for name in missing)
        parts = ", ".join(f"{part} ({n} of {whole[part]} tensors)" for part, n in lacking.items())
        if not partial:
            raise CheckpointError(
                f"{weights}: {len(missing)} tensors of the backbone are not in it ({parts}); if "
                "these may start from random weights, say so: --partial-backbone, or "
                "partial_backbone=True"
            )
        print(f"{weights}: not in this file, left at random weights: {parts}")
    backbone.load_state_dict(state, strict=False)
    return tuple(state)


def read_tensors(path: str | Path) -> Any:
    """What a file of tensors and plain values holds, verified; no code in it is run.

    Args:
        path: of a file that `torch.save` wrote.

    Returns:
        its content, on the CPU.

    Raises:
        CheckpointError: the file is cut short, damaged, or holds code or objects besides.
    """
    try:
        if zipfile.is_zipfile(path):  # older files are no archives and have no checksums
            # torch itself does not compare the checksums. And an entry that a flipped bit turned
            # into a folder it does not read at all: that tensor would have any values.
            with zipfile.ZipFile(path) as archive:
                folders = (e.filename for e in archive.infolist() if e.external_attr & _FOLDER)
                damaged = archive.testzip() or next(folders, None)
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} fails its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's text advises to run the code
        raise CheckpointError(
            f"{path}: not loaded: it is damaged, or holds code or objects besides tensors and "
            "plain values"
        ) from error
    except Exception as error:  # torch and zipfile raise a dozen kinds for a damaged file
        why = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: not readable, cut short or damaged ({why}); copy it again"
        ) from error


def freeze_pretrained(backbone: ResNet, loaded: tuple[str, ...], stages: int) -> None:
    """Freeze what was loaded, and nothing that is still random.

    Args:
        backbone: with its weights loaded.
        loaded: names of the tensors that were, from `load_backbone_weights`. Exactly the batch
            norms that are whole among them are frozen.
        stages: how many of the stem and the four stages are wanted frozen. Fewer are, and it is
            printed, if one of them was not loaded.

    Raises:
        ValueError: there are not so many stages.
    """
    random = set(_needed(backbone)) - set(loaded)
    norms = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and not any(n.startswith(f"{name}.") for n in random)
    ]
    parts = {name.split(".")[0] for name in random}
    pretrained = [parts.isdisjoint(names) for names in STAGES]
    most = [*pretrained, False].index(False)  # stages that are whole, from the bottom
    if most < stages <= len(STAGES):
        print(f"frozen stages: {most} instead of {stages}, the next one starts at random weights")
        stages = most
    backbone.freeze(tuple(norms), stages)


def _needed(backbone: ResNet) -> list[str]:
    """Names of the tensors that weights must have.

    Files made before torch counted the batches of a norm lack that counter, which is of no use.
    """
    return [name for name in backbone.state_dict() if not name.endswith("num_batches_tracked")]


def _backbone_state(depth: int, weights: str | Path) -> Mapping[str, Tensor]:
    if weights == "imagenet":
        return download_weights(models.get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"])
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of backbone weights (or say 'imagenet')")
    return read_state_dict(path)


def download_weights(entry: models.WeightsEnum) -> Mapping[str, Tensor]:
    """Weights that torchvision offers, by its own download, whose checksum it compares.

    Args:
        entry: one of torchvision's enumerations of weights.

    Returns:
        tensors by name.

    Raises:
        CheckpointError: the download fails.
    """
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or a wrong checksum
        raise CheckpointError(
            f"{entry.url}: could not be downloaded ({error}); try again, or fetch the file "
            "elsewhere and give its path"
        ) from error


def read_state_dict(path: str | Path) -> Mapping[str, Tensor]:
    """Tensors by name from a file, verified.

    Args:
        path: of the file.

    Returns:
        the state dict.

    Raises:
        CheckpointError: as `read_tensors`, or the file holds something else.
    """
    state = read_tensors(path)
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path}: not a state dict, that is, a mapping from names to tensors")
    return state
