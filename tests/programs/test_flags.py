"""The flags of the original programs: their forms, repetitions, files and presets."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from leanet.config import UsageError
from leanet.programs.flags import Given, Phase1, Phase2, Shared, parse

# the two commands of the original program's README, with its shell variables filled in
README_PHASE1 = """
    --GPU -1 --save_path SAVE_PATH
    --dataset DATASET  --task "colorization" --n_splits 10
    --model "Unet" --loss "BCE"
    --batch_size 16 --epochs 10
    --lr 1e-04
"""
README_PHASE2 = """
    --GPU  -1 --save_path SAVE_PATH
    --dataset DATASET --n_splits 10
    --input_method 'img_and_attMap'
    --output_method 'AAN_and_ADN'
    --model_ADN 'ResNet18' --model_AAN 'MobileNet'
    --attention_points 0
    --batch_size 16 --epochs 100 --lr 1e-04
    --epochs 3
"""


def phase1(text: str) -> Given[Phase1]:
    given = parse("phase1", Phase1, shlex.split(text))
    assert isinstance(given, Given)
    return given


def phase2(text: str) -> Given[Phase2]:
    given = parse("phase2", Phase2, shlex.split(text))
    assert isinstance(given, Given)
    return given


def test_the_readme_command_of_phase_1_is_understood() -> None:
    given = phase1(README_PHASE1)
    assert given.notices == ()
    flags = given.flags
    assert (flags.GPU, flags.task, flags.model, flags.loss) == (-1, "colorization", "Unet", "BCE")
    assert (flags.n_splits, flags.batch_size, flags.epochs, flags.lr) == (10, 16, 10, 1e-4)


def test_the_readme_command_of_phase_2_trains_3_epochs_and_says_so() -> None:
    given = phase2(README_PHASE2)
    assert given.flags.epochs == 3
    assert given.notices == (
        "warning: --epochs is given 2 times (100, then 3); the last counts: 3",
    )
    assert given.flags.attention_points == (0,)


def test_the_defaults_are_those_of_the_originals() -> None:
    one = phase1("").flags
    assert (one.n_splits, one.img_size, one.batch_size, one.epochs, one.lr) == (
        10, 256, 16, 100, 1e-4,
    )  # fmt: skip
    two = phase2("").flags
    assert (two.img_size, two.batch_size, two.epochs) == (256, 16, 100)
    assert (two.input_method, two.model_ADN, two.model_AAN, two.additional_module) == (
        "img_and_attMap", "ResNet18", "MobileNet", "None",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "points"),
    [
        ("", None),
        ("--attention_points", ()),
        ("--attention_points None", ("None",)),
        ("--attention_points 0 3 4", (0, 3, 4)),
        ("--attention_points auto --seed 3", ("auto",)),
    ],
)
def test_attention_points_come_as_a_list(words: str, points: tuple[int | str, ...] | None) -> None:
    assert phase2(words).flags.attention_points == points


def test_a_list_given_twice_is_named_with_both_its_values() -> None:
    given = phase2("--attention_points 0 1 --seed 2 --attention_points 3")
    assert given.flags.attention_points == (3,)
    assert "--attention_points is given 2 times (0 1, then 3)" in given.notices[0]


@pytest.mark.parametrize("word", ["--epochs 3 --epochs=4", "--epochs=3 --epochs 4"])
def test_both_spellings_of_a_value_count_as_the_same_flag(word: str) -> None:
    given = phase1(word)
    assert given.flags.epochs == 4
    assert "(3, then 4)" in given.notices[0]


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (Phase1, "--task colour", "--task: expected one of 'colorization'"),
        (Phase1, "--model VGG16", "--model: expected one of 'AE'"),
        (Phase1, "--epochs many", "--epochs: expected int, got many"),
        (Phase1, "--GPU first", "--GPU: expected int, got first"),
        (Phase1, "--lerning_rate 1", "unknown option 'lerning_rate'"),
        (Phase1, "--epoch 3", "unknown option 'epoch' (did you mean epochs?)"),
        (Phase1, "--preset papers", "--preset papers: allowed is paper"),
        (Phase2, "--input_method image", "--input_method: expected one of 'img_and_attMap'"),
        (Phase2, "--additional_module GE", "--additional_module: expected one of 'None', 'SE'"),
        (Phase2, "--num_outputs 3", "--num_outputs: expected one of 1, 2"),
    ],
)
def test_a_wrong_flag_says_what_is_allowed(kind: type[Shared], words: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse("phase", kind, words.split())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_line_wins_over_the_file_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 7\nattention_points: [1, 2]\n", encoding="utf-8")
    given = phase2(f"--epochs 5 --config {file}")
    assert given.flags.epochs == 5
    assert given.flags.attention_points == (1, 2)
    assert given.notices == ()


def test_print_config_gives_a_file_that_gives_the_same_flags(tmp_path: Path) -> None:
    words = ["--task", "rotation", "--model", "AE", "--fold", "1", "2", "--lr", "0.002"]
    text = parse("phase1", Phase1, [*words, "--print_config"])
    assert isinstance(text, str)
    assert yaml.safe_load(text)["fold"] == [1, 2]
    file = tmp_path / "same.yaml"
    file.write_text(text, encoding="utf-8")
    assert phase1(f"--config {file}").flags == phase1(shlex.join(words)).flags


def test_the_preset_is_the_papers_and_single_flags_win() -> None:
    one = phase1("--epochs 20 --preset paper").flags
    assert (one.lr, one.epochs, one.n_splits) == (1e-3, 20, 5)
    two = phase2("--preset=paper").flags
    assert (two.early_stop, two.attention_strength, two.n_splits) == ("none", "paper", 5)


def test_a_preset_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "preset.yaml"
    file.write_text("preset: paper\n", encoding="utf-8")
    with pytest.raises(UsageError, match="take it out of the file"):
        phase1(f"--config {file}")


def test_two_switches_say_what_becomes_of_earlier_work() -> None:
    assert phase1("").earlier == "refuse"
    assert phase1("--resume").earlier == "resume"
    assert phase2("--overwrite").earlier == "overwrite"
    with pytest.raises(UsageError, match="give one"):
        phase1("--resume --overwrite")
