"""What self-attention modules of a classifier let through: where, and which channels.

A module with a `gate(x)` multiplies its input x by it. Gates over places, [B, 1, h, w] of CBAM, of
ABN (1 + M), or the channel mean of SimAM's [B, C, h, w], are drawn for every image, all blocks on
one scale, as far as such gates can go:

    gates/NAME.png      the image, and a gate per block

Gates over channels, [B, C, 1, 1] of SE, ECA, SRM and CBAM, have no place. They are drawn once, as
bars: their mean over the images of each predicted class, for the channels of every block that
differ most between the classes.

    gates/channels.png  and channels.json with all means
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from leanet.files import replacing, write_json
from leanet.inference.cam_layers import evaluating

FOLDER, CHANNELS = "gates", "channels"
COLUMNS, BARS, CELL = 5, 10, 1.7  # pictures in a row; channels of a block; inches of a picture
Plane = NDArray[np.float32]


class Gates(NamedTuple):
    """Of a batch, per module in the order of running: over places [B, h, w], over channels
    [B, C]."""

    places: dict[str, Tensor]
    channels: dict[str, Tensor]


def find_gates(network: nn.Module) -> dict[str, nn.Module]:
    """The gating modules by name, without those that are made of others (CBAM of two)."""
    found = {
        name: module
        for name, module in network.named_modules()
        if name and callable(getattr(module, "gate", None)) and not _is_module(module, "gate")
    }
    return {
        name: module
        for name, module in found.items()
        if not any(other.startswith(f"{name}.") for other in found)
    }


@torch.no_grad()
def capture_gates(network: nn.Module, inputs: tuple[Tensor, ...]) -> Gates:
    """Run a network once, in evaluation mode, and keep all gates."""
    gates = Gates({}, {})
    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        for name, module in find_gates(network).items():
            handle = module.register_forward_pre_hook(_keeper(name, gates))
            stack.callback(handle.remove)
        network(*inputs)
    return gates


class GatesView:
    """Draws the gates of a network below `out`, batch by batch; nothing if it has none."""

    def __init__(self, network: nn.Module, out: Path) -> None:
        self.network, self.folder = network, out / FOLDER
        self._any = bool(find_gates(network))
        self._sums: dict[str, dict[str, Tensor]] = {}  # block -> class -> sum over its images [C]
        self._counts = Counter[str]()

    def see(
        self,
        inputs: tuple[Tensor, ...],
        image: Tensor,
        names: Sequence[Path],
        classes: Sequence[str],
    ) -> None:
        """Draw the gates over places of a batch (its images [B, 3, S, S] in [0, 1] to `names`), and
        add up those over channels for the predicted class of every image."""
        if not self._any:
            return
        gates = capture_gates(self.network, inputs)
        self._counts.update(classes)
        for block, values in gates.channels.items():
            sums = self._sums.setdefault(block, {})
            for row, name in enumerate(classes):
                sums[name] = sums.get(name, torch.zeros(())) + values[row]
        photos = (image.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
        for row, path in enumerate(names) if gates.places else ():
            planes = {block: values[row].numpy() for block, values in gates.places.items()}
            save_places(photos[row], planes, self.folder / path, path.as_posix())

    def finish(self) -> None:
        """Draw and write the mean gates over channels."""
        if not self._sums:
            return
        names = sorted(self._counts)
        means = {
            block: np.stack([(sums[name] / self._counts[name]).numpy() for name in names])
            for block, sums in self._sums.items()
        }
        numbers = {block: mean.tolist() for block, mean in means.items()}
        images = [self._counts[name] for name in names]
        write_json(
            self.folder / f"{CHANNELS}.json", {"classes": names, "images": images, "gates": numbers}
        )
        save_channels(means, names, self.folder / f"{CHANNELS}.png")


def save_places(image: NDArray[np.uint8], gates: dict[str, Plane], path: Path, title: str) -> None:
    """Draw the gates [h, w] of one image [H, W, 3], all on one scale."""
    top = _top(gates.values())
    columns = min(COLUMNS, len(gates) + 1)
    rows = -(-(len(gates) + 1) // columns)
    size = (CELL * columns + 0.9, (CELL + 0.4) * rows + 0.3)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    figure.suptitle(title, fontsize=9)
    for axes in grid:
        axes.set_axis_off()
    grid[0].imshow(image)
    grid[0].set_title("image", fontsize=7)
    drawn: Any = None
    for axes, (name, plane) in zip(grid[1:], gates.items(), strict=False):
        drawn = axes.imshow(plane, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
        low, high = float(plane.min()), float(plane.max())
        axes.set_title(f"{name}\n{low:.2f} to {high:.2f}", fontsize=6)
    bar = figure.colorbar(drawn, ax=grid.tolist(), shrink=0.9)
    bar.set_label("gate: factor of the features", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    _save(figure, path)


def save_channels(means: dict[str, Plane], names: Sequence[str], path: Path) -> None:
    """Draw the mean gates [classes, C] of every block."""
    top = _top(means.values())
    size = (8, 0.5 + 1.5 * len(means))
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    grid = figure.subplots(len(means), 1, squeeze=False).ravel()
    for axes, (block, mean) in zip(grid, means.items(), strict=True):
        most = np.argsort(-np.ptp(mean, axis=0), kind="stable")[:BARS]
        place, width = np.arange(len(most)), 0.8 / len(names)
        for k, name in enumerate(names):
            axes.bar(place + k * width, mean[k, most], width, label=name)
        axes.set_xticks(place + 0.4 - width / 2, [str(channel) for channel in most], fontsize=6)
        axes.set_ylim(0, top)
        axes.tick_params(axis="y", labelsize=6)
        told = f"{block}: {mean.shape[1]} channels, {mean.min():.2f} to {mean.max():.2f}"
        axes.set_title(told, fontsize=7, loc="left")
    figure.legend(*grid[0].get_legend_handles_labels(), fontsize=7, loc="outside upper right")
    grid[-1].set_xlabel("channels whose mean gate differs most between the classes", fontsize=7)
    _save(figure, path)


def _top(gates: Iterable[Plane]) -> float:
    """The end of the scale: gates go to 1, or to 2 where they begin at 1."""
    return 2.0 if max(float(plane.max()) for plane in gates) > 1 else 1.0


def _keeper(name: str, gates: Gates) -> Any:
    def keep(module: Any, given: tuple[Tensor, ...]) -> None:
        gate = module.gate(given[0].detach()).float().cpu()
        if gate.shape[2:] == (1, 1):
            gates.channels[name] = gate[:, :, 0, 0]
        else:
            gates.places[name] = gate.mean(dim=1)

    return keep


def _is_module(module: nn.Module, name: str) -> bool:
    """Whether it is a part (the slot of a block) and not a method."""
    return isinstance(getattr(module, name), nn.Module)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
