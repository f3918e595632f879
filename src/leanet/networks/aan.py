"""Anomaly attention networks (AAN): they read the anomaly map and steer the classifier.

LEA-Net (Katafuchi & Tokunaga 2021, arXiv:2109.05493) turns the features g_p of a small network
over the anomaly map x into the attention map M_p = sigmoid(mean over channels of g_p). The three
networks of the paper and its program, all at strides 2, 4, 8, 16 and 32:

- `ResNetAAN`: a residual network of four single blocks (paper, Table 1);
- `MobileNetAAN`: the MobileNetV3-small layout (Howard et al. 2019, doi:10.1109/ICCV.2019.00140)
  as the program codes it: ReLU everywhere, biased convolutions, squeeze-and-excitation of full
  width. Taps A2..A5 are linear outputs and may be negative;
- `DirectAAN`: no weights, the map itself at every size ("Direct Attention").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import BasicBlock, Staged, StagedClassifier, conv_bn, he_normal_

STRIDES = (2, 4, 8, 16, 32)


class DirectAAN(Staged):
    """No weights and no head: stage p is the map [B, in_chans, H, W] averaged over squares of
    2, 4, ... 32 px. Sides that are no multiple of the stride lose the remainder."""

    strides = STRIDES

    def __init__(self, in_chans: int = 1) -> None:
        super().__init__()
        self.channels = (in_chans,) * len(STRIDES)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Halve both sides: [B, in_chans, h, w] -> [B, in_chans, h / 2, w / 2]."""
        return F.avg_pool2d(x, 2)


class ResNetAAN(StagedClassifier):
    """Stem and four single residual blocks: [B, in_chans, H, W] -> logits [B, num_outputs]."""

    strides = STRIDES
    channels = (64, 64, 128, 256, 512)

    def __init__(self, in_chans: int = 1, num_outputs: int = 1) -> None:
        super().__init__()
        self.stem = conv_bn(in_chans, 64, 7, stride=2)
        self.blocks = nn.ModuleList(
            [
                BasicBlock(64, 64, biased=True),
                BasicBlock(64, 128, stride=2, biased=True),
                BasicBlock(128, 256, stride=2, biased=True),
                BasicBlock(256, 512, stride=2, biased=True),
            ]
        )
        self.fc = nn.Linear(512, num_outputs)
        he_normal_(self)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Stage 0: stem; stage 1: max-pool and the first block; then one block each."""
        if index == 0:
            tap: Tensor = self.stem(x)  # [B, 64, H / 2, W / 2]
            return tap
        if index == 1:
            x = F.max_pool2d(x, 3, stride=2, padding=1)  # [B, 64, H / 4, W / 4]
        out: Tensor = self.blocks[index - 1](x)
        return out

    def head(self, x: Tensor) -> Tensor:
        """Global average, then linear: [B, 512, h, w] -> [B, num_outputs]."""
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class WideSqueezeExcite(nn.Module):
    """Channel gate of full width: [B, C, H, W] times hard_sigmoid(linear(relu(linear(mean)))).

    The one for classifiers, with fewer hidden units and a sigmoid, is attention.SqueezeExcite.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels)
        self.expand = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel by a factor in [0, 1]."""
        hidden = F.relu(self.reduce(x.mean(dim=(2, 3))))  # [B, C]
        return x * F.hardsigmoid(self.expand(hidden))[:, :, None, None]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, gate, linear 1x1 projection; a skip where the shape
    stays: [B, in, H, W] -> [B, out, H / stride, W / stride]."""

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.expand = conv_bn(in_channels, expanded, 1)
        self.depthwise = conv_bn(expanded, expanded, kernel, stride, groups=expanded)
        self.gate = WideSqueezeExcite(expanded) if gated else nn.Identity()
        self.project = conv_bn(expanded, out_channels, 1, relu=False)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Run the branch and add the input where the shapes agree."""
        out: Tensor = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + out if self.has_skip else out


class MobileNetAAN(StagedClassifier):
    """MobileNetV3-small as coded in the program: [B, in_chans, H, W] -> logits [B, num_outputs]."""

    strides = STRIDES
    channels = (16, 16, 24, 48, 96)

    def __init__(self, in_chans: int = 1, num_outputs: int = 1) -> None:
        super().__init__()
        block = InvertedResidual
        self.stages = nn.ModuleList(
            [
                conv_bn(in_chans, 16, 3, stride=2),
                block(16, 16, 16, kernel=3, stride=2),
                nn.Sequential(
                    block(16, 72, 24, kernel=3, stride=2, gated=False),
                    block(24, 88, 24, kernel=3, gated=False),
                ),
                nn.Sequential(
                    block(24, 96, 40, kernel=5, stride=2),
                    block(40, 240, 40, kernel=5),
                    block(40, 240, 40, kernel=5),
                    block(40, 120, 48, kernel=5),
                    block(48, 144, 48, kernel=5),
                ),
                nn.Sequential(
                    block(48, 288, 96, kernel=5, stride=2),
                    block(96, 576, 96, kernel=5),
                    block(96, 576, 96, kernel=5),
                ),
            ]
        )
        self.last = conv_bn(96, 576, 1)
        self.hidden = nn.Conv2d(576, 1280, 1)
        self.fc = nn.Conv2d(1280, num_outputs, 1)
        he_normal_(self)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Stage 0: strided convolution; stages 1 to 4: inverted residual blocks.

        Under autocast on the CPU it computes in float32 and gives the type of the autocast.
        """
        return _in_float32_on_cpu(self.stages[index], x)

    def head(self, x: Tensor) -> Tensor:
        """1x1 convolution, global average, two dense layers: [B, 96, h, w] -> [B, num_outputs]."""
        features = _in_float32_on_cpu(self.last, x)
        pooled = features.mean(dim=(2, 3), keepdim=True)  # [B, 576, 1, 1]
        logits: Tensor = self.fc(F.relu(self.hidden(pooled))).flatten(1)
        return logits


def _in_float32_on_cpu(layers: nn.Module, x: Tensor) -> Tensor:
    """`layers(x)`; under autocast on the CPU in float32, the result in the type of the autocast.

    In bfloat16 the gradient of a wide depthwise convolution takes a CPU four to six times as long
    as in float32, more than the pointwise ones can gain. The result is cast, as float32 features
    would also pull the classifier that they steer out of bfloat16.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        out: Tensor = layers(x)
        return out
    with torch.autocast("cpu", enabled=False):
        out = layers(x.float())
    return out.to(torch.get_autocast_dtype("cpu"))
