from __future__ import annotations

from pathlib import Path

import pytest

from leanet.data.csv_layout import read_table, with_groups
from leanet.records import ANOMALOUS, NORMAL, Sample


def table(folder: Path, text: str, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "data.csv").write_text(text, encoding="utf-8")
    return folder / "data.csv"


def test_a_full_table_fills_every_field(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "label,path,type,mask,group,split\n1,a/x.png,rust,m/x.png,leaf 7,test\ngood, b.jpg ,,,,\n",
        "a/x.png",
        "m/x.png",
        "b.jpg",
    )
    assert read_table(path) == [
        Sample(
            path=tmp_path / "a/x.png",
            label=ANOMALOUS,
            kind="rust",
            mask=tmp_path / "m/x.png",
            group="leaf 7",
            split="test",
        ),
        Sample(path=tmp_path / "b.jpg", label=NORMAL),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffpath,label\na.png,0\n", "a.png")
    assert len(read_table(path)) == 1


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("0", NORMAL),
        ("Normal", NORMAL),
        ("GOOD", NORMAL),
        ("negative", NORMAL),
        ("1", ANOMALOUS),
        ("anomalous", ANOMALOUS),
        ("bad", ANOMALOUS),
        ("Positive", ANOMALOUS),
    ],
)
def test_labels_may_be_words(tmp_path: Path, word: str, label: int) -> None:
    path = table(tmp_path, f"path,label\na.png,{word}\n", "a.png")
    assert read_table(path)[0].label == label


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.png,0\nb.png,maybe\n", "row 3: label is 'maybe'; allowed are 0, normal"),
        ("path,label,split\na.png,0,tset\n", "row 2: split is 'tset'; allowed are train"),
        ("path,label,grp\na.png,0,1\n", r"unknown columns: 'grp' \(did you mean group\?\)"),
        ("path,type\na.png,0\n", "lacks the column label; found: path, type"),
        ("path;label\na.png;0\n", "unknown columns: 'path;label'"),
        ("path,label\n", "has no rows"),
        ("", "has no rows"),
        ("path,label\na.png,0,extra\n", "row 2: more or fewer cells"),
        ("path,label\na.png\n", "row 2: more or fewer cells"),
        ("path,label\na.txt,0\n", "row 2: path 'a.txt' is no image"),
        ("path,label\n,0\n", "row 2: path '' is no image"),
        ("path,label\na.png,0\nb.png,1\na.png,1\n", "a.png in row 2 and again in row 4"),
    ],
)
def test_a_wrong_table_is_refused_with_the_row(tmp_path: Path, text: str, said: str) -> None:
    path = table(tmp_path, text, "a.png", "b.png")
    with pytest.raises(ValueError, match=said) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_missing_images_and_masks_are_listed(tmp_path: Path) -> None:
    rows = "".join(f"{k}.png,1,m{k}.png\n" for k in range(8))
    path = table(tmp_path, "path,label,mask\n" + rows, "0.png", "m0.png")
    with pytest.raises(ValueError, match=r"14 files that do not exist: 1\.png, m1\.png,") as caught:
        read_table(path)
    assert "and 4 more" in str(caught.value)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"path,label\n\xff\xfe,0\n")
    with pytest.raises(ValueError, match="no CSV file in UTF-8"):
        read_table(tmp_path / "data.csv")


def test_groups_are_looked_up_by_relative_path(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("exposure,file,group\n1,a/1.png,x\n2,a/3.png,\n")
    samples = [Sample(path=tmp_path / f"a/{k}.png", label=NORMAL) for k in (1, 2, 3)]
    assert [sample.group for sample in with_groups(tmp_path, samples)] == ["x", None, None]


def test_without_a_table_there_are_no_groups(tmp_path: Path) -> None:
    samples = [Sample(path=tmp_path / "1.png", label=NORMAL)]
    assert with_groups(tmp_path, samples) == samples


@pytest.mark.parametrize(
    ("text", "said"),
    [("name,group\n1.png,x\n", "lacks the column file"), ("file,group\nz/1.png,x\n", "names none")],
)
def test_groups_that_cannot_be_used_are_not_passed_over(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        with_groups(tmp_path, [Sample(path=tmp_path / "1.png", label=NORMAL)])
