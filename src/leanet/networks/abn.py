"""Attention Branch Network (Fukui et al., CVPR 2019, arXiv:1812.10025) on our ResNets.

A second head looks at the features f of stage 3 through its own copy of stage 4, and says which
class it sees and where; the first one then sees f times one plus that place:

    q = relu(bn(conv1x1(bn(stage 4 with stride 1(f)))))       [B, K, h, w]
    a = mean over the positions of conv1x1(q)                 [B, K], logits of the branch
    M = sigmoid(bn(conv3x3(q)))                               [B, 1, h, w], attention map
    p = head(stage 4(f * (1 + M)))                            [B, K], logits

Both learn, CE(a) + CE(p); p judges. M is the map of the detector, and whoever knows better may give
another one: an anomaly map, or a person's drawing.

All convolutions are without bias. Start `identity` is for trained weights: M begins near
sigmoid(-4) = 0.018 instead of 0.5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.attention import Start
from leanet.networks.blocks import SelfAttention, he_normal_
from leanet.networks.resnet import LAYOUTS, ResNet, residual_layer

START_BIAS = -4.0  # of the last BatchNorm at start `identity`


class ABNOutput(NamedTuple):
    """logits [B, K] to judge by, branch_logits [B, K], map [B, 1, h, w] in (0, 1) or as given."""

    logits: Tensor
    branch_logits: Tensor
    map: Tensor


class AttentionBranch(SelfAttention):
    """Features of stage 3 [B, C, h, w] -> the same times 1 + M; `look` gives the logits too."""

    def __init__(self, depth: int, num_outputs: int, *, start: Start = "paper") -> None:
        super().__init__()
        block, counts = LAYOUTS[depth]
        width = 512 * block.expansion
        self.layer4 = residual_layer(block, counts[3], 256 * block.expansion, 512, 1)
        self.bn = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, num_outputs, 1, bias=False)
        self.bn_classes = nn.BatchNorm2d(num_outputs)
        self.conv_logits = nn.Conv2d(num_outputs, num_outputs, 1, bias=False)
        self.conv_map = nn.Conv2d(num_outputs, 1, 3, padding=1, bias=False)
        self.bn_map = nn.BatchNorm2d(1)
        he_normal_(self.layer4)
        for conv in (self.conv, self.conv_logits, self.conv_map):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # by fan_in: few go out
        if start == "identity":
            nn.init.constant_(self.bn_map.bias, START_BIAS)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits a [B, K] and map M [B, 1, h, w]."""
        q = F.relu(self.bn_classes(self.conv(self.bn(self.layer4(x)))))  # [B, K, h, w]
        logits = self.conv_logits(q).mean(dim=(2, 3))
        return logits, torch.sigmoid(self.bn_map(self.conv_map(q)))

    def gate(self, x: Tensor) -> Tensor:
        """1 + M: [B, 1, h, w] in (1, 2)."""
        return 1 + self.look(x)[1]


class ABN(ResNet):
    """[B, in_chans, H, W] -> logits [B, num_outputs]: a ResNet with an attention branch.

    The other weights are those of the plain ResNet of the same seed and have its names.
    `resnet_args` are `stem` and `dropout`. Raises ValueError for what `ResNet` refuses.
    """

    def __init__(
        self,
        depth: int,
        in_chans: int = 3,
        num_outputs: int = 1,
        *,
        start: Start = "paper",
        **resnet_args: Any,
    ) -> None:
        super().__init__(depth, in_chans, num_outputs, **resnet_args)
        head = self.fc
        del self.fc  # registered again behind the branch: weight files expect the head last
        with torch.random.fork_rng(devices=[]):
            self.branch = AttentionBranch(depth, num_outputs, start=start)
        self.fc = head

    def stage(self, index: int, x: Tensor) -> Tensor:
        """As in a ResNet; stage 4 begins with the attention."""
        return super().stage(index, self.branch(x) if index == 4 else x)

    def attend(self, x: Tensor, attention_map: Tensor | None = None) -> ABNOutput:
        """What both heads see and where: x [B, in_chans, H, W].

        `attention_map` [B, 1, H', W'] in [0, 1] takes the place of M; it is averaged or repeated to
        the size of stage 3. The branch's logits do not depend on it.
        """
        for index in range(4):
            x = self.stage(index, x)
        branch_logits, drawn = self.branch.look(x)
        if attention_map is not None:
            drawn = F.adaptive_avg_pool2d(attention_map.to(x), (x.shape[2], x.shape[3]))
        logits = self.head(super().stage(4, x * (1 + drawn)))
        return ABNOutput(logits, branch_logits, drawn)


def start_branch(network: ABN) -> None:
    """Copy stage 4 with its BatchNorm statistics into the branch, in place: after a file of plain
    ResNet weights was loaded, which has none for the branch."""
    network.branch.layer4.load_state_dict(network.layer4.state_dict())
