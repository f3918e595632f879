"""Files in sections become the flat options of ADFA, and mistakes in them are named."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.config import from_dict
from leanet.methods.adfa_config import PRESETS, CfaConfig, Config
from leanet.methods.adfa_file import OPTIONS, SECTIONS, read_sections, translate
from leanet.prepare import Options

CONFIGS = Path(__file__).parents[2] / "configs" / "adfa"
MVTEC = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
MEDICAL = {"brain_mri": "half", "busi": "half", "covid19": "imagenet", "sipakmed": "imagenet"}
WHOLE = """
method: adfa
preset: default
data: {root: datasets/mvtec, category: bottle, image_size: 224, resize: 256, crop: center, normalize: imagenet}
model: {backbone: wide_resnet50_2.tv_in1k, weights: null, feature_indices: null, gamma_d: 4, gamma_c: 1,
        eca: true, eca_kernel: 9, eca_factor: 0.1, eca_second: max, kl_weight: true}
topk: {kind: soft, k: 3, eps: 0.1, cmax: image, block: 128}
loss: {kind: adfa, nu: 0.001, alpha: 0.1, radius: 1.0e-5, radius_learnable: false, hard_negatives: 3}
train: {epochs: 200, max_steps: 3000, batch_size: 10, lr: 1.0e-3, weight_decay: 5.0e-4, amsgrad: true, seed: 1024}
score: {kind: sqrt, blur_sigma: 4, image: max, top_pixels: 100}
"""  # noqa: E501 - as a user writes it
HALF = [0.5, 0.5, 0.5]


def config_of(options: dict[str, Any], config: type[Any] = Config) -> Any:
    """The configuration of the method's own options."""
    names = {field.name for field in fields(config)}
    return from_dict(config, {key: value for key, value in options.items() if key in names})


def test_every_key_is_an_option() -> None:
    known = {field.name for config in (Config, CfaConfig, Options) for field in fields(config)}
    assert set(OPTIONS.values()) <= known
    assert len(set(OPTIONS.values())) == len(OPTIONS)


def test_every_option_of_the_method_has_a_key() -> None:
    elsewhere = {"crop", "mean", "std"}  # from the section data
    own = {field.name for field in fields(Config)}
    assert own - elsewhere <= set(OPTIONS.values())


def test_a_whole_file_says_what_the_default_preset_says() -> None:
    read = translate(yaml.safe_load(WHOLE), "bottle.yaml")
    assert read.preset == "default"
    assert read.options["data"] == str(Path("datasets/mvtec/bottle"))
    assert (read.options["method"], read.options["seed"]) == ("adfa", 1024)
    assert (read.options["img_size"], read.options["crop"]) == (256, "center")
    assert config_of(read.options) == Config()


def test_names_that_sections_share_become_different_options() -> None:
    values = {
        "topk": {"kind": "hard", "k": 5},
        "loss": {"kind": "cfa", "radius": "1e-4"},
        "score": {"kind": "softmin", "image": "top_mean", "top_pixels": 9},
    }
    read = translate(values, "f")
    config = config_of(read.options)
    assert (config.topk, config.loss, config.score) == ("hard", "cfa", "softmin")
    assert (config.k, config.radius, config.image_score, config.top_pixels) == (
        5,
        1e-4,
        "top_mean",
        9,
    )


@pytest.mark.parametrize(
    ("data", "size", "crop"),
    [
        ("{image_size: 224, resize: 256, crop: center}", 256, "center"),
        ("{image_size: 224, resize: 256}", 256, "center"),
        ("{image_size: 256, resize: 256}", 256, "none"),
        ("{image_size: 112, crop: center}", 128, "center"),
        ("{resize: 256, crop: none}", 256, "none"),
        ("{resize: 128}", 128, None),
        ("{crop: none}", None, "none"),
    ],
)
def test_sizes_are_those_before_the_crop(data: str, size: int | None, crop: str | None) -> None:
    options = translate({"data": yaml.safe_load(data)}, "f").options
    assert (options.get("img_size"), options.get("crop")) == (size, crop)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{data: {image_size: 200, resize: 256, crop: center}}", "do not go together"),
        ("{data: {image_size: 224, resize: 256, crop: none}}", "do not go together"),
        ("{data: {image_size: 224}}", "say data.crop as well"),
        ("{data: {resize: [256, 256]}}", "give a side in pixels"),
        ("{data: {crop: middle}}", "allowed: none, center"),
        ("{data: {normalize: imagnet}}", r"did you mean imagenet\?"),
        ("{data: {rot: x}}", r"unknown key 'rot' in data \(did you mean root\?\)"),
        ("{topk: {esp: 0.1}}", r"unknown key 'esp' in topk \(did you mean eps\?\)"),
        ("{model: {}, los: {nu: 1}}", r"unknown section 'los' \(did you mean loss\?\)"),
        ("{topk: {k: 3}, k: 4}", "gives k twice"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^my.yaml.*{message}"):
        translate(yaml.safe_load(text), "my.yaml")


def test_options_may_stand_beside_the_sections() -> None:
    values = {"topk": {"k": 2}, "device": "cpu", "backbone_args": {"pad_type": "same"}}
    options = translate(values, "f").options
    assert options == {"k": 2, "device": "cpu", "backbone_args": {"pad_type": "same"}}


@pytest.mark.parametrize(
    "text", ["epochs: 3\nloss: adfa\ndata: a/b\n", "", "map_model: {epochs: 3}"]
)
def test_files_without_sections_are_left_to_the_parser(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert read_sections(tmp_path / "c.yaml") is None
    assert read_sections(tmp_path / "none.yaml") is None


def test_what_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {root: [")
    with pytest.raises(ValueError, match=r"c\.yaml is no YAML file"):
        read_sections(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["patchcore", "[1, 2]"])
def test_a_file_without_options_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml holds no options"):
        read_sections(tmp_path / "c.yaml")


# --- the files of the repository ---


def test_there_is_a_file_for_each_category() -> None:
    assert sorted(file.stem for file in CONFIGS.glob("*")) == sorted((*MVTEC, *MEDICAL))


def test_the_files_differ_in_their_data_only() -> None:
    rest = []
    for name in (*MVTEC, *MEDICAL):
        values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        data = values.pop("data")
        assert data == {
            "root": "datasets/medical" if name in MEDICAL else "datasets/mvtec",
            "category": name,
            "image_size": 224,
            "resize": 256,
            "crop": "center",
            "normalize": MEDICAL.get(name, "imagenet"),
        }
        rest.append(values)
    assert rest == [rest[0]] * 19


@pytest.mark.parametrize("name", [*MVTEC, *MEDICAL])
def test_every_file_is_understood(name: str) -> None:
    read = read_sections(CONFIGS / f"{name}.yaml")
    assert read is not None
    assert read.preset == "default"
    config = config_of({**PRESETS["default"], **read.options})
    assert list(config.mean) == (HALF if MEDICAL.get(name) == "half" else list(Config().mean))


def test_what_the_files_show_as_a_comment_is_the_default_preset() -> None:
    lines = (CONFIGS / "grid.yaml").read_text().splitlines()
    section = tuple(f"# {name}: " for name in SECTIONS)
    comments = [line.removeprefix("# ") for line in lines if line.startswith((*section, "#     "))]
    plain = [line for line in lines if not line.startswith("train:")]
    read = translate(yaml.safe_load("\n".join([*plain, *comments])), "grid.yaml")
    assert config_of(read.options) == Config()
    assert set(read.options) >= set(OPTIONS.values()) - {
        "pretrained", "backbone_args", "bank_mean", "topk_scale", "drop_last", "lr_schedule",
        "val_fraction",
    }  # fmt: skip
