"""CAVGA: a variational autoencoder with a spatial latent, and its attention
(Venkataramanan et al. 2020, arXiv:1911.08616).

    image -> encoder -> features F [B, K, h, w] -> mu, logvar -> z -> decoder -> image
                                                                z -> head -> normal, anomalous

Its attention is Grad-CAM of the network itself. With G the gradient of a score S at features F,

    M = sum_k alpha_k F_k,  alpha_k = mean over places of G_k                      [B, T, h, w]

where S is the sum of mu (T = 1), or, with the head, the logit of each class (T = 2). While that is
trained, gradients pass through alpha and through F. For the usual heads alpha is a function of the
weights alone, so M has a closed form, without a backward pass (`Cavga.alpha`):

    S = sum of mu, 1x1 convolution      alpha_k = sum_c Wmu[c, k]
    S = sum of mu, flat latent          alpha_k = mean over places p of sum_c Wmu[c, (k, p)]
    S = logit c, conv latent (F = z)    alpha_k = mean over places p of W_c[(k, p)]
    S = logit c, flat latent            alpha_k = mean over places p of sum_m W_c[m] Wmu[m, (k, p)]

The general path (`autograd`) serves a head with a hidden layer, and the last layer but one of the
encoder, whose grid is twice as fine.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks import dcgan
from leanet.networks.blocks import BasicBlock, he_normal_
from leanet.networks.resnet import residual_layer
from leanet.ops.cam import grad_cam

Kind = Literal["R", "D"]
Latent = Literal["conv", "flat"]
Path = Literal["closed", "autograd"]
Layer = Literal["last", "previous"]

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = 512  # of the encoder's last features
LOGVAR_LIMIT = 10.0
NUM_CLASSES = 2  # normal, anomalous


class Inside(NamedTuple):
    """Everything a forward pass makes.

    features F [B, 512, h, w]; mu, logvar, z [B, C, h, w] or, flat, [B, C]; logits [B, 3, S, S] of
    the reconstruction, which is their sigmoid; classes [B, 2]: logits of normal and anomalous, None
    without a head; attention: raw maps M, [B, 1, h, w] or, with a head, [B, 2, h, w].
    """

    features: Tensor
    mu: Tensor
    logvar: Tensor
    z: Tensor
    logits: Tensor
    classes: Tensor | None
    attention: Tensor


class ResnetEncoder(nn.Module):
    """ResNet-18 without its head: images [B, 3, S, S], ImageNet-normalized -> [B, 512, S/32, S/32].

    Layers have torchvision's names. Without `pool` all grids are twice as fine.
    """

    def __init__(self, pool: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        self.layer1 = residual_layer(BasicBlock, 2, 64, 64, 1)
        self.layer2 = residual_layer(BasicBlock, 2, 64, 128, 2)
        self.layer3 = residual_layer(BasicBlock, 2, 128, 256, 2)
        self.layer4 = residual_layer(BasicBlock, 2, 256, CHANNELS, 2)
        he_normal_(self)

    def early(self, image: Tensor) -> Tensor:
        """All layers but the last: [B, 3, S, S] -> [B, 256, S/16, S/16]."""
        x = self.pool(F.relu(self.bn1(self.conv1(image))))
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out

    def late(self, x: Tensor) -> Tensor:
        """The last layer: [B, 256, S/16, S/16] -> [B, 512, S/32, S/32]."""
        out: Tensor = self.layer4(x)
        return out


class UpBlock(nn.Module):
    """[B, in, s, s] -> [B, out, 2s, 2s]: enlarged, then two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Double the side."""
        up = F.interpolate(x, scale_factor=2.0, mode="nearest")
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(up)))))
        return F.relu(branch + self.skip(up))


class ResidualDecoder(nn.Sequential):
    """[B, 512, s, s] -> logits [B, 3, 2^n s, 2^n s] by `num_blocks` up-blocks, each of half the
    channels of the one before."""

    def __init__(self, num_blocks: int) -> None:
        channels = [CHANNELS >> k for k in range(num_blocks + 1)]
        blocks = [UpBlock(a, b) for a, b in pairwise(channels)]
        super().__init__(*blocks, nn.Conv2d(channels[-1], 3, 3, padding=1))


class Cavga(nn.Module):
    """The generator's side of CAVGA: encoder, latent, decoder, and, if `weak`, the head.

    kind R: ResNet-18 and a residual decoder; D: the layers of DC-GAN. latent conv: 1x1 convolutions
    to `latent_channels` at every place; flat: one vector (the paper's ablation). `stem_pool` False
    leaves out the max-pool of R. `head_hidden` is the width of a hidden layer of the head (0: none
    is there). `path` says how attention is computed, `layer` from which features.

    Raises:
        ValueError: a side that is no multiple of the stride; a closed form where there is none.
    """

    mean: Tensor
    sd: Tensor

    def __init__(  # noqa: PLR0913 - the options of the network, by name
        self,
        kind: Kind,
        latent: Latent,
        side: int,
        *,
        latent_channels: int = 128,
        stem_pool: bool = True,
        weak: bool = False,
        head_hidden: int = 0,
        path: Path = "closed",
        layer: Layer = "last",
    ) -> None:
        super().__init__()
        self.kind, self.latent, self.path, self.layer = kind, latent, path, layer
        self.grid = require_side(kind, side, stem_pool)
        if path == "closed" and not has_closed_form(
            weak=weak, head_hidden=head_hidden, layer=layer
        ):
            raise ValueError(
                "a head with a hidden layer and the previous layer have no closed form of the "
                "attention; use the path autograd"
            )
        self.encoder: ResnetEncoder | dcgan.Encoder
        self.decoder: ResidualDecoder | dcgan.Decoder
        if kind == "R":
            self.encoder = ResnetEncoder(stem_pool)
            self.decoder = ResidualDecoder(5 if stem_pool else 4)
            mean, sd = IMAGENET_MEAN, IMAGENET_SD
        else:
            self.encoder, self.decoder = dcgan.Encoder(), dcgan.Decoder()
            mean = sd = (0.5, 0.5, 0.5)
        ends = ("layer1", "layer2", "layer3", "layer4") if kind == "R" else ("1", "4", "7", "10")
        self.explained = tuple(f"encoder.{name}" for name in ends)  # by class activation maps
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(sd).view(1, 3, 1, 1), persistent=False)
        places = self.grid**2
        flat = latent == "flat"
        self.latent_shape = (latent_channels,) if flat else (latent_channels, self.grid, self.grid)
        self.mu = _to_latent(latent, latent_channels, places)
        self.logvar = _to_latent(latent, latent_channels, places)
        self.entry = _entry(kind, latent, latent_channels, self.grid)
        width = latent_channels * places if latent == "conv" else latent_channels
        self.head = _head(width, head_hidden) if weak else None
        if kind == "D":
            for part in (self.mu, self.logvar, self.entry):
                dcgan.init_(part)

    @property
    def map_grid(self) -> int:
        """Side of the grid of the attention maps."""
        return self.grid if self.layer == "last" else 2 * self.grid

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Inside:
        """Images [B, 3, S, S] in [0, 1]; z = mu + noise * SD, z = mu without noise.

        On the path autograd it makes gradients for itself even where they are switched off.

        Raises:
            ValueError: the path autograd is to be exported.
        """
        if self.path == "autograd" and torch.compiler.is_exporting():
            raise ValueError(
                "attention that is computed by a backward pass cannot be exported; train with "
                "--attention_path auto, --attention_layer last and --head_hidden 0"
            )
        if self.path == "closed" or torch.is_grad_enabled():
            return self._pass(image, noise)
        with torch.inference_mode(False), torch.enable_grad():
            made = self._pass(image.clone(), None if noise is None else noise.clone())
        classes = None if made.classes is None else made.classes.detach()
        rest = {name: value.detach() for name, value in made._asdict().items() if name != "classes"}
        return Inside(classes=classes, **rest)

    def alpha(self) -> Tensor:
        """Weights of the channels in closed form, [T, K]: of F, or, with a head on the conv latent,
        of z.

        Raises:
            ValueError: there is no closed form.
        """
        if self.path != "closed":
            raise ValueError("on the path autograd the weights of the channels differ by image")
        weight = self.mu.weight.flatten(1)  # [C, K] or [C, K h w]
        if self.head is not None:
            linear: Tensor = self.head[-1].weight  # type: ignore[assignment]  # [2, C h w] or [2, C]
            weight = linear if self.latent == "conv" else linear @ weight
        else:
            weight = weight.sum(dim=0, keepdim=True)
        if self.head is None and self.latent == "conv":
            return weight
        return weight.reshape(len(weight), -1, self.grid**2).mean(dim=2)

    def decode(self, z: Tensor) -> Tensor:
        """Latents like mu -> logits [B, 3, S, S] of images."""
        x = self.entry(z)
        if self.latent == "flat":
            x = x.unflatten(1, (CHANNELS, self.grid, self.grid))
        logits: Tensor = self.decoder(x)
        return logits if self.kind == "R" else 2 * logits  # sigmoid(2a) = (tanh(a) + 1) / 2

    def _pass(self, image: Tensor, noise: Tensor | None) -> Inside:
        previous = self.encoder.early((image - self.mean) / self.sd)
        if self.path == "autograd" and not previous.requires_grad:  # a frozen encoder
            previous.requires_grad_()
        features = self.encoder.late(previous)
        seen = features if self.latent == "conv" else features.flatten(1)
        mu: Tensor = self.mu(seen)
        logvar: Tensor = self.logvar(seen).clamp(-LOGVAR_LIMIT, LOGVAR_LIMIT)
        z = mu if noise is None else mu + noise * (logvar / 2).exp()
        logits = self.decode(z)
        classes = None if self.head is None else self.head(z.flatten(1))
        with torch.autocast(image.device.type, enabled=False):
            if self.path == "closed":
                own = z if self.head is not None and self.latent == "conv" else features
                raw = _weighted(self.alpha(), own.to(self.mu.weight.dtype))
            else:
                raw = self._by_gradient(previous, features, mu, z, classes)
        return Inside(features, mu, logvar, z, logits, classes, raw)

    def _by_gradient(
        self, previous: Tensor, features: Tensor, mu: Tensor, z: Tensor, classes: Tensor | None
    ) -> Tensor:
        """Raw maps M [B, T, h, w] with the gradients of the scores, kept for training."""
        target = features if self.layer == "last" else previous
        if self.head is None:
            scores = mu.flatten(1).float().sum(dim=1, keepdim=True)
        elif self.latent == "conv" and self.layer == "last":
            assert classes is not None
            target, scores = z, classes
        else:
            scores = self.head(mu.flatten(1).to(self.mu.weight.dtype))
        maps = []
        for score in scores.unbind(dim=1):
            (gradient,) = torch.autograd.grad(
                score.sum(), target, create_graph=self.training, retain_graph=True
            )
            exact = self.mu.weight.dtype  # also where the features are bfloat16
            maps.append(grad_cam(target.to(exact), gradient.to(exact)))
        return torch.cat(maps, dim=1)


def require_side(kind: Kind, side: int, stem_pool: bool = True) -> int:
    """Side of the latent grid for images of this side.

    Raises:
        ValueError: it is no multiple of the stride.

    >>> require_side("R", 256), require_side("D", 64)
    (8, 4)
    """
    stride = 32 if kind == "R" and stem_pool else 16
    if side < stride or side % stride:
        raise ValueError(
            f"img_size {side} does not fit CAVGA's encoder {kind}: give a multiple of {stride}"
        )
    return side // stride


def has_closed_form(*, weak: bool, head_hidden: int, layer: Layer) -> bool:
    """Whether the channel weights of the attention are a function of the weights alone."""
    return layer == "last" and not (weak and head_hidden)


def _to_latent(latent: Latent, channels: int, places: int) -> nn.Conv2d | nn.Linear:
    if latent == "conv":
        return nn.Conv2d(CHANNELS, channels, 1)
    return nn.Linear(CHANNELS * places, channels)


def _entry(kind: Kind, latent: Latent, channels: int, grid: int) -> nn.Sequential:
    """From the latent to 512 channels at every place."""
    if latent == "flat":
        return nn.Sequential(nn.Linear(channels, CHANNELS * grid**2), nn.ReLU())
    if kind == "R":
        return nn.Sequential(nn.Conv2d(channels, CHANNELS, 1), nn.ReLU())
    conv = nn.Conv2d(channels, CHANNELS, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(CHANNELS), nn.ReLU())


def _head(width: int, hidden: int) -> nn.Sequential:
    if not hidden:
        return nn.Sequential(nn.Linear(width, NUM_CLASSES))
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, NUM_CLASSES))


def _weighted(alpha: Tensor, maps: Tensor) -> Tensor:
    """Weights [T, K] and maps [B, K, h, w] -> their sums [B, T, h, w]."""
    return F.conv2d(maps, alpha[:, :, None, None])
