"""Checkpoints of anomalib are read as plain data, and what does not fit is told in a line."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leanet.methods import anomalib_file, anomalib_model
from leanet.methods.anomalib_file import (
    build_network,
    build_transform,
    covered,
    digest,
    read_checkpoint,
)

Write = Callable[..., Path]
fake = pytest.mark.usefixtures("fake_anomalib")


class Anything:
    """A class that no allow-list names."""


def transform(*steps: tuple[str, Any]) -> dict[str, Any]:
    inside = [{"class_path": f"v2.{n}", "init_args": {"size": size}} for n, size in steps]
    return {"class_path": "v2.Compose", "init_args": {"transforms": inside}}


@pytest.mark.parametrize("module", [anomalib_file, anomalib_model])
def test_anomalib_is_not_imported_with_the_package(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    words = [
        str(getattr(node, "module", "")) + " ".join(a.name for a in node.names) for node in named
    ]
    assert not [word for word in words if word.startswith("anomalib")]


def test_without_anomalib_it_says_how_to_install_it(
    write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "anomalib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(ValueError, match=r"needs anomalib .*pip install 'leanet\[anomalib\]'"):
        read_checkpoint(write_checkpoint(), "Nearcolor")


@fake
def test_the_network_comes_back_with_a_bank_that_only_fitting_has_sized(
    write_checkpoint: Write,
) -> None:
    taken = read_checkpoint(write_checkpoint(), "Nearcolor")
    assert taken.extra["shapes"] == {"bank": [2, 3]}
    network = build_network("Nearcolor", taken.extra)
    network.load_state_dict(taken.tensors)
    assert not network.training
    assert len(network.steps) == 2  # some networks take their size from the transform
    assert torch.equal(network.get_buffer("bank"), taken.tensors["bank"])
    assert set(taken.tensors) == {"bank"}  # nothing of the parts around it


@fake
def test_arguments_are_stored_as_plain_values_and_no_weights_are_fetched(
    write_checkpoint: Write,
) -> None:
    taken = read_checkpoint(write_checkpoint("low"), "Nearcolor")
    assert taken.extra["arguments"] == {"kind": "low", "pre_trained": False}
    assert taken.version == "2.7.stand-in"


@fake
def test_the_random_numbers_of_the_caller_stay_his(write_checkpoint: Write) -> None:
    before = torch.random.get_rng_state()
    read_checkpoint(write_checkpoint(), "Nearcolor")
    assert torch.equal(torch.random.get_rng_state(), before)


@fake
def test_an_unknown_model_is_refused_with_the_nearest(write_checkpoint: Write) -> None:
    with pytest.raises(ValueError, match=r"no model 'nearcolor' \(did you mean Nearcolor\?\)"):
        read_checkpoint(write_checkpoint(), "nearcolor")


@fake
def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint at .*none\.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt", "Nearcolor")


@fake
def test_a_checkpoint_with_objects_is_not_read(write_checkpoint: Write) -> None:
    file = write_checkpoint(hyper_parameters={"backbone": Anything()})
    with pytest.raises(ValueError, match="no Lightning checkpoint of plain data"):
        read_checkpoint(file, "Nearcolor")


@fake
def test_weights_alone_are_no_checkpoint(write_checkpoint: Write) -> None:
    file = write_checkpoint()
    torch.save({"bank": torch.zeros(2, 3)}, file)
    with pytest.raises(ValueError, match="no Lightning checkpoint of plain data"):
        read_checkpoint(file, "Nearcolor")


@fake
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_dict": {"model.weight": torch.zeros(1)}}, r"2 differ \(bank, weight\)"),
        (
            {"state_dict": {"_is_fitted": torch.tensor([False]), "model.bank": torch.zeros(0)}},
            "before its model was fitted",
        ),
        ({"anomalib_pre_processor_config": {"transform": None}}, "does not say how its images"),
        (
            {"hyper_parameters": {"kind": "round", "pre_trained": True}},
            "cannot build Nearcolor .*'round' is not a valid",
        ),
        ({"hyper_parameters": {"kind": torch.zeros(1)}}, "Tensor is no plain value"),
    ],
)
def test_what_does_not_fit_is_told(
    changes: dict[str, Any], message: str, write_checkpoint: Write
) -> None:
    with pytest.raises(ValueError, match=message):
        read_checkpoint(write_checkpoint(**changes), "Nearcolor")


@fake
def test_a_model_without_pre_processor_sees_images_as_they_are(write_checkpoint: Write) -> None:
    file = write_checkpoint(anomalib_components_enabled={"pre_processor": False})
    spec = read_checkpoint(file, "Nearcolor").extra["transform"]
    made, share = build_transform(spec)
    image = torch.rand(1, 3, 8, 8)
    assert spec is None
    assert share == 1
    assert torch.equal(made(image), image)


@fake
def test_the_transform_is_the_stored_one(parts: SimpleNamespace) -> None:
    made, share = build_transform(parts.HALVE)
    assert share == 1
    assert torch.equal(made(torch.full((1, 3, 2, 2), 0.75)), torch.full((1, 3, 2, 2), 0.5))


@pytest.mark.parametrize(
    ("steps", "share"),
    [
        ([("Resize", [256, 256])], 1.0),
        ([("Resize", [256]), ("CenterCrop", [224, 224])], 0.875),
        ([("Resize", 448), ("ExportableCenterCrop", 392), ("Normalize", None)], 0.875),
        ([("Resize", 64), ("CenterCrop", 32), ("Resize", 64), ("CenterCrop", 32)], 0.25),
    ],
)
def test_crops_leave_a_share_of_each_side(steps: list[tuple[str, Any]], share: float) -> None:
    assert covered(transform(*steps)) == share


@pytest.mark.parametrize(
    "steps",
    [
        [("Resize", [256, 320])],
        [("CenterCrop", [224, 224])],
        [("Resize", 64), ("CenterCrop", 96)],
        [("SquarePad", None)],
    ],
)
def test_transforms_that_move_pixels_otherwise_are_refused(steps: list[tuple[str, Any]]) -> None:
    with pytest.raises(ValueError, match="only a resize to a square, a center crop inside it"):
        covered(transform(*steps))


def test_a_digest_tells_files_by_their_bytes(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    first, same, other = (digest(tmp_path / name) for name in "abc")
    assert first == same != other
    assert first == "6b86b273ff34fce1"  # the first digits of `printf 1 | sha256sum`
