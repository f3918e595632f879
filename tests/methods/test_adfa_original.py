"""Files of the program that ADFA is known from in its MVTec form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.config import from_dict, merged
from leanet.methods.adfa_config import PRESETS, Config
from leanet.methods.adfa_file import read_sections
from leanet.methods.adfa_original import translate_original

FILE = """
EXP_NAME: ADFA
TASK: anomaly
METHOD: unsupervised
API_KEY: 'not-a-real-key'
SEED: 42
DATASET: {datadir: datasets/anomaly/mvtec, target: bottle, mode: true, resize: [256, 256]}
DATALOADER: {batch_size: 2, num_workers: 2}
MODEL: {backbone: wide_resnet50_2, gamma_d: 1, num_nearest_neighbors: 3, num_hard_negative_features: 3, radius: 0.00001}
TRAIN: {num_training_steps: 3000, use_wandb: true, top_k: 100}
OPTIMIZER:
  adam: {option: false, lr: 0.001, weight_decay: 0.0}
  adamw: {option: true, lr: 0.001, weight_decay: 0.0001}
  sgd: {option: false, lr: 0.001, momentum: 0.9, weight_decay: 0.0001}
SCHEDULER:
  use_scheduler: true
  cosine_annealing_warmup_restarts: {min_lr: 0.0001, warmup_ratio: 0.1, option: true}
  step_lr: {option: false, gamma: 0.1}
RESUME: {option: true, opset_version: 13}
"""  # noqa: E501 - as a user writes it


def translated(change: str = "{}") -> dict[str, Any]:
    values = merged(yaml.safe_load(FILE), yaml.safe_load(change))
    return translate_original(values, "bottle.yaml").options


def test_the_file_as_it_is_says_what_the_preset_says(tmp_path: Path) -> None:
    (tmp_path / "bottle.yaml").write_text(FILE)
    read = read_sections(tmp_path / "bottle.yaml")
    assert read is not None
    assert read.preset == "tnvision"
    options = dict(read.options)
    assert options.pop("data") == str(Path("datasets/anomaly/mvtec/bottle"))
    assert (options.pop("seed"), options.pop("img_size")) == (42, 256)
    whole = from_dict(Config, {**PRESETS["tnvision"], **options})
    assert whole == from_dict(Config, PRESETS["tnvision"])


def test_every_number_arrives() -> None:
    options = translated(
        "{MODEL: {gamma_d: 2, gamma_c: 4, num_nearest_neighbors: 5, num_hard_negative_features: 6,"
        " radius: 0.5, backbone: resnet18}, DATALOADER: {batch_size: 7}, SEED: 8,"
        " TRAIN: {num_training_steps: 90, top_k: 10}, DATASET: {resize: [128, 128]}}"
    )
    got = {key: options[key] for key in ("gamma_d", "gamma_c", "k", "hard_negatives", "radius")}
    assert got == {"gamma_d": 2, "gamma_c": 4, "k": 5, "hard_negatives": 6, "radius": 0.5}
    assert (options["batch_size"], options["seed"], options["max_steps"]) == (7, 8, 90)
    assert (options["top_pixels"], options["img_size"]) == (10, 128)
    assert options["backbone"] == "resnet18.tv_in1k"


def test_keys_of_services_are_not_read_and_the_rest_is_listed() -> None:
    secret, ignored = translate_original(yaml.safe_load(FILE), "bottle.yaml").notices
    assert "API_KEY, TRAIN.use_wandb not read" in secret
    assert "not-a-real-key" not in secret + ignored
    for key in ("EXP_NAME", "DATASET.mode", "DATALOADER.num_workers", "RESUME.opset_version"):
        assert key in ignored
    assert "MODEL" not in ignored
    assert "OPTIMIZER" not in ignored


def test_the_optimizer_is_the_one_that_is_switched_on() -> None:
    change = "{OPTIMIZER: {adam: {option: true, lr: 0.5}, adamw: {option: false}}}"
    assert (translated(change)["lr"], translated(change)["weight_decay"]) == (0.5, 0.0)


def test_no_schedule_is_a_constant_step_size() -> None:
    assert translated("{SCHEDULER: {use_scheduler: false}}")["lr_schedule"] == "constant"
    assert translated()["lr_schedule"] == "warmup_cosine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{TASK: segment}", "TASK 'segment'; here it is anomaly"),
        ("{DATASET: {resize: [256, 320]}}", "give equal sides"),
        ("{OPTIMIZER: {sgd: {option: true}}}", "true at adamw, sgd; it takes one"),
        ("{OPTIMIZER: {adamw: {option: false}}}", "true at none"),
        ("{OPTIMIZER: {adamw: {option: false}, adam: {option: true, weight_decay: 0.1}}}", "adamw"),
        ("{SCHEDULER: {step_lr: {option: true}}}", "restarts, step_lr; allowed is"),
        ("{SCHEDULER: {cosine_annealing_warmup_restarts: {warmup_ratio: 0.2}}}", "here it is 0.1"),
    ],
)
def test_what_would_train_otherwise_is_refused(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^bottle.yaml: .*{message}"):
        translated(change)
