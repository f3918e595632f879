"""LEA-Net as a detector: the map model draws, the networks judge, the scores are joined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.methods.patches import PatchDetector
from leanet.methods.recipe import DetectorModule
from leanet.methods.supervised import Normalize, one_logit
from leanet.networks.guided import GuidedNet
from leanet.networks.leanet import AdnInput, LEANet, LEAOutput, adn_input
from leanet.ops.embedding import pooled
from leanet.ops.fusion import Fusion, fuse
from leanet.ops.map_steps import MapPreparation, prepare_map
from leanet.ops.maps import MapScale, map_score
from leanet.records import Prediction

DARKEST = 1e-3  # dE00 added to map means before the logarithm


class Reader(nn.Module):
    """Shows a LEA-Net image [B, 3, S, S] in [0, 1] and network map [B, 1, S, S] as it is meant to
    see them: the image is joined with the map first, and its colors are normalized then."""

    def __init__(self, normalize: Normalize, how: AdnInput) -> None:
        super().__init__()
        self.normalize, self.how = normalize, how

    def forward(self, network: nn.Module, image: Tensor, anomaly_map: Tensor) -> LEAOutput:
        """Run the network."""
        output: LEAOutput = network(self.prepare(image, anomaly_map), anomaly_map)
        return output

    def prepare(self, image: Tensor, anomaly_map: Tensor) -> Tensor:
        """The input of the classifier."""
        seen = adn_input(image, anomaly_map, self.how)
        if self.how == "4_channel":
            return torch.cat([self.normalize(seen[:, :3]), seen[:, 3:]], dim=1)
        return seen if self.how == "map" else self.normalize(seen)


class LEADetector(DetectorModule):
    """Detector: score [B] is the part that decides; map [B, 1, S, S] is the map model's, in its
    unit; parts: adn and aan (logits), map (what the map alone says), fused (all of them, where the
    logits do not begin with the map), tuned (the fine-tuned copy beside guided attention).

    one_look: guided attention and its map model read the same features of the same backbone, which
    are computed once (`sees_the_same`)."""

    network: LEANet | GuidedNet
    logits = ("adn", "aan")

    def __init__(  # noqa: PLR0913 - a complete detector has so many parts
        self,
        network: LEANet | GuidedNet,
        map_model: DetectorModule,
        reader: Reader,
        *,
        drawn_by: dict[str, Any],
        preparation: MapPreparation,
        fusion: Fusion | None,
        decide: str,
        network_size: int | None = None,
        one_look: bool = False,
    ) -> None:
        super().__init__()
        self.one_look = one_look
        self.network, self.map_model, self.reader = network, map_model, reader
        self.preparation, self.scale = preparation, preparation.scale
        self.fusion, self.decide = fusion, decide
        self.drawn_by = drawn_by  # what the map model is, for `rebuild`
        self.img_size = map_model.img_size
        self.network_size = network_size or self.img_size  # of image and map in the networks
        self.map_unit, self.map_top = map_model.map_unit, self.scale.divisor
        self.map_border, self.map_grid = map_model.map_border, map_model.map_grid

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        anomaly_map, output = self._run(image)
        parts = named_scores(output, prepare_map(anomaly_map, self.preparation), self.scale)
        if self.fusion is not None:
            parts = {"fused": fuse(self.fusion, parts), **parts}
        return Prediction(parts[self.decide], anomaly_map, parts=parts)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """The repainted image, and per point p the attention map and the channel means of the
        features before and after it, at the resolution of their stage, and w as one pixel; of
        guided attention, which has no w, the evidence of each place, in log-odds."""
        _, output = self._run(image)
        pictures = self.map_model.explain(image)
        for k, point in enumerate(self.network.points):
            pictures[f"attention A{point + 1}"] = output.attention[k]
            pictures[f"before A{point + 1}"] = output.before[k].mean(dim=1, keepdim=True)
            pictures[f"after A{point + 1}"] = output.after[k].mean(dim=1, keepdim=True)
        for name, w in self.strengths().items():
            pictures[f"strength {name}"] = image.new_full((len(image), 1, 1, 1), w)
        if isinstance(self.network, GuidedNet):
            pictures["evidence"] = self.network.evidence(output)
        return pictures

    def embed(self, image: Tensor) -> Tensor:
        """What the stages of the classifier before the last see without being steered: that one
        only tells good from bad."""
        plain = self.reader.how == "image"
        side = self.network_size
        unused = image.new_zeros(len(image), 1, side, side) if plain else None
        features = self.network.adn.features(self.prepare(image, unused)[0])
        return pooled(*(features[:-1] or features))

    def prepare(self, image: Tensor, network_map: Tensor | None = None) -> tuple[Tensor, ...]:
        """The classifier's input and the network map, both of the networks' side; a `network_map`
        that is given takes the place of the map model's."""
        if network_map is None:
            drawn = self._at_network_size(self.map_model(image).map)
            network_map = prepare_map(drawn, self.preparation)
        return self.reader.prepare(self._at_network_size(image), network_map), network_map

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        """Those of the head adn (default) or aan."""
        heads = {"": output.adn, "adn": output.adn, "aan": output.aan}
        logits = heads.get(head)
        if not isinstance(logits, Tensor):
            known = ", ".join(name for name, value in heads.items() if name and value is not None)
            raise ValueError(f"head {head!r}: this network has the head(s) {known}")
        return logits

    def strengths(self) -> dict[str, float]:
        """w of every attention point; {} for guided attention, which has none."""
        return self.network.named_strengths()

    def extra(self) -> dict[str, Any]:
        """The map model, what becomes of its map, and the fusion of the scores."""
        return {
            "map_model": self.drawn_by,
            **self.preparation.to_dict(),
            "fusion": self.fusion.to_dict() if self.fusion else None,
            "map_top": self.map_top,
            "network_size": self.network_size,
            "one_look": self.one_look,
            "tuned": isinstance(self.network, GuidedNet) and self.network.tuned is not None,
        }

    def _run(self, image: Tensor) -> tuple[Tensor, LEAOutput]:
        if self.one_look:
            return self._look_once(image)
        anomaly_map = self.map_model(image).map
        image, seen = (self._at_network_size(planes) for planes in (image, anomaly_map))
        return anomaly_map, self.reader(self.network, image, prepare_map(seen, self.preparation))

    def _look_once(self, image: Tensor) -> tuple[Tensor, LEAOutput]:
        network, model = self.network, self.map_model
        assert isinstance(network, GuidedNet)
        assert isinstance(model, PatchDetector)
        with torch.autocast(image.device.type, enabled=False):  # as the map model looks
            features = network.look(self.reader.prepare(image.float(), image))
        anomaly_map = model.judge(features[: len(model.features.channels)]).map
        assert anomaly_map is not None
        network_map = prepare_map(anomaly_map, self.preparation)
        tuned = network.ask(self.reader.prepare(image, image))
        return anomaly_map, network.judge(features, network_map, tuned)

    def _at_network_size(self, planes: Tensor) -> Tensor:
        """Planes [B, C, S, S] at the side that the networks were trained on."""
        side = self.network_size
        if planes.shape[-1] == side:
            return planes
        return functional.interpolate(planes, (side, side), mode="bilinear", antialias=True)


def sees_the_same(network: nn.Module, reader: Reader, model: DetectorModule, img_size: int) -> bool:
    """Whether the first features that guided attention reads in images of this side are all that
    the map model reads, tried on an image of noise."""
    if not (isinstance(network, GuidedNet) and isinstance(model, PatchDetector)):
        return False
    if img_size != model.img_size or model.map_border:
        return False
    noise = torch.rand(1, 3, img_size, img_size, generator=torch.Generator().manual_seed(0))
    noise = noise.to(network.bias.device)
    with torch.no_grad():
        theirs, ours = model.see(noise), network.look(reader.prepare(noise, noise))
    ours = ours[: len(theirs)]
    return [one.shape for one in ours] == [one.shape for one in theirs] and all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().mean()))
        for one, other in zip(ours, theirs, strict=True)
    )


def named_scores(output: LEAOutput, network_map: Tensor, scale: MapScale) -> dict[str, Tensor]:
    """The single scores [B]: logits of the heads, and what the map says: z where the classifier
    begins with it, else the log of its mean (in its unit, clipped by scale)."""
    scores = {"adn": one_logit(output.adn)}
    if output.prior is not None:
        scores["map"] = output.prior
    else:
        mean = map_score(network_map) * scale.divisor * scale.headroom
        scores["map"] = (mean + DARKEST).log()
    if output.aan is not None:
        scores["aan"] = one_logit(output.aan)
    if output.tuned is not None:
        scores["tuned"] = output.tuned.mean(dim=(1, 2, 3))
    return scores
