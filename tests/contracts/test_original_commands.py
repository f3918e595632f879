"""The two sample commands in the README of the original program, as they stand there.

Only the interpreter, `python phase1.py`, is another, and what its shell variables stand for; a few
flags are given again behind them, where the last one counts, so that the runs are small.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template

import pytest

from leanet.cli import main
from leanet.data.toy import make_toy
from leanet.files import read_csv, read_json

PHASE1 = """
leanet phase1 \\
--GPU ${GPU_ID} --save_path ${SAVE_PATH} \\
--dataset ${DATASET}  --task "colorization" --n_splits 10 \\
--model "Unet" --loss "BCE" \\
--batch_size 16 --epochs 10 \\
--lr 1e-04
"""
PHASE2 = """
leanet phase2 \\
--GPU  ${gpu_id} --save_path ${SAVE_PATH} \\
--dataset ${DATASET} --n_splits 10 \\
--input_method 'img_and_attMap' \\
--output_method 'AAN_and_ADN' \\
--model_ADN 'ResNet18' --model_AAN 'MobileNet' \\
--attention_points 0 \\
--batch_size 16 --epochs 100 --lr 1e-04 \\
--epochs 3
"""
SMALL = "--img_size 32 --epochs 1"


def run(command: str, more: str, dataset: Path, out: Path) -> int:
    filled = Template(command).substitute(GPU_ID=-1, gpu_id=-1, DATASET=dataset, SAVE_PATH=out)
    one_line = filled.replace("\\\n", "")  # as a shell reads it
    return main(shlex.split(f"{one_line.strip()} {more}")[1:])


@pytest.mark.parametrize(
    ("more", "folds"),
    [
        (f"{SMALL} --fold 4", ["04"]),
        pytest.param(
            SMALL, [f"{k:02d}" for k in range(1, 11)], marks=pytest.mark.slow, id="all folds"
        ),
    ],
)
def test_the_sample_commands_run_one_after_the_other(
    more: str, folds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_toy(tmp_path / "data", num_normal=20, num_anomalous=10, size=32)
    assert run(PHASE1, more, data, tmp_path / "maps") == 0
    assert "warning: --epochs is given 2 times (10, then 1)" in capsys.readouterr().out
    assert run(PHASE2, more, tmp_path / "maps", tmp_path / "out") == 0
    assert "--epochs is given 3 times (100, then 3, then 1)" in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "summary.json")["folds"] == folds
    for fold in folds:
        rows = read_csv(tmp_path / "out" / fold / "result.csv")
        assert sorted(row["true"] for row in rows) == ["0", "0", "1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("phase1 --GPU 7 --task denoise --model AE --dataset D --save_path S", "--GPU 7: this"),
        ("phase1 --task denoise", "missing: --save_path, --dataset, --model"),
        ("phase1 --task denoize --model AE", "--task: expected one of 'colorization'"),
        ("phase2 --dataset D --save_path S --attention_points None 0", "None stands alone"),
        ("phase2 --dataset D --save_path S --input_method img_only --output_method AAN_and_ADN",
         "has no head; use --output_method ADN_only"),
        ("phase2 --dataset nowhere --save_path S", "--dataset nowhere is no folder"),
        ("phase2 --resume --overwrite", "give one"),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_status_2_and_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("leanet: ")
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("program", ["phase1", "phase2"])
def test_the_configuration_is_printed_with_comments(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([program, "--epochs", "7", "--print_config"]) == 0
    out = capsys.readouterr().out
    assert "epochs: 7\n" in out
    assert "# step size of Adam" in out
