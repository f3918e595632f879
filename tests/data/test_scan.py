from __future__ import annotations

import random
from pathlib import Path, PurePath

import pytest

from leanet.data.scan import natural_key, read_samples_csv, scan, write_samples_csv
from leanet.data.toy import make_toy
from leanet.records import ANOMALOUS, NORMAL, Sample


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def two_labels(root: Path, num_anomalous: int = 20) -> Path:
    positive = [f"Positive/kind{k % 2}/{k}.png" for k in range(num_anomalous)]
    return tree(root, "Negative/1.png", "Negative/2.png", *positive)


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    tree(tmp_path, *(f"Negative/image{k}.png" for k in (10, 9, 100, 2)), "Negative/IMAGE3.png")
    samples = scan(tmp_path).samples
    assert names(tmp_path, tuple(sample.path for sample in samples)) == [
        f"Negative/{name}.png" for name in ("image2", "IMAGE3", "image9", "image10", "image100")
    ]


def test_the_natural_order_is_total() -> None:
    paths = [PurePath(name) for name in ("a1", "A1", "a01", "a", "1a", "a1b2", "a1b10", "b/1", "b")]
    expected = sorted(paths, key=natural_key)
    for seed in range(20):
        random.Random(seed).shuffle(paths)
        assert sorted(paths, key=natural_key) == expected


def test_other_files_are_counted_and_hidden_ones_skipped(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "Negative/1.png",
        "Positive/2.JPEG",
        "SOURCE.md",
        "Positive/notes.txt",
        "preview.png",
        ".DS_Store",
        ".cache/3.png",
        "Positive/._2.JPEG",
        "Positive/Thumbs.db",
        "__MACOSX/Negative/1.png",
    )
    found = scan(tmp_path)
    assert names(tmp_path, tuple(sample.path for sample in found.samples)) == [
        "Negative/1.png",
        "Positive/2.JPEG",
    ]
    assert names(tmp_path, found.ignored) == ["Positive/notes.txt", "preview.png", "SOURCE.md"]


def test_masks_and_the_group_table_are_used_not_ignored(tmp_path: Path) -> None:
    tree(tmp_path, "Negative/1.png", "Positive/2.png", "Mask/2.png", "Mask/9.png")
    (tmp_path / "groups.csv").write_text("file,group\nPositive/2.png,7\n")
    found = scan(tmp_path)
    assert [sample.group for sample in found.samples] == [None, "7"]
    assert names(tmp_path, found.ignored) == ["Mask/9.png"]


def test_a_csv_file_is_a_data_set(tmp_path: Path) -> None:
    tree(tmp_path, "b.png", "a.png")
    (tmp_path / "mine.csv").write_text("path,label\nb.png,1\na.png,0\n")
    found = scan(tmp_path / "mine.csv")
    assert (found.root, found.layout) == (tmp_path, "csv")
    assert [sample.label for sample in found.samples] == [ANOMALOUS, NORMAL]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "1.png")
    data = tree(tmp_path / "data", "Positive/2.png")
    (data / "Negative").symlink_to(tmp_path / "elsewhere")
    (data / "Positive" / "loop").symlink_to(data)
    assert len(scan(data).samples) == 2


def test_drawing_positives_keeps_all_normal_images_and_the_order(tmp_path: Path) -> None:
    everything = scan(two_labels(tmp_path)).samples
    drawn = scan(tmp_path, positives=5, seed=3).samples
    assert [sample.label for sample in drawn] == [NORMAL] * 2 + [ANOMALOUS] * 5
    assert list(drawn) == [sample for sample in everything if sample in drawn]


def test_the_seed_decides_the_draw(tmp_path: Path) -> None:
    two_labels(tmp_path)
    draws = [scan(tmp_path, positives=5, seed=seed).samples for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_every_positive_is_drawn_about_equally_often(tmp_path: Path) -> None:
    two_labels(tmp_path, 6)
    draws = [scan(tmp_path, positives=2, seed=seed).samples for seed in range(300)]
    counts = {s.path: 0 for s in scan(tmp_path).samples if s.label == ANOMALOUS}
    for drawn in draws:
        for sample in drawn[2:]:
            counts[sample.path] += 1
    assert all(60 < count < 140 for count in counts.values())  # 100 expected, SD 8


@pytest.mark.parametrize("positives", [-1, 0, 21])
def test_more_positives_than_there_are_is_an_error(tmp_path: Path, positives: int) -> None:
    with pytest.raises(ValueError, match="has 20 anomalous images; allowed are 1 to 20"):
        scan(two_labels(tmp_path), positives=positives)


def test_a_missing_folder_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "potatoes").mkdir()
    with pytest.raises(ValueError, match=r"does not exist \(did you mean potatoes\?\)"):
        scan(tmp_path / "potatoes2")


def test_a_missing_folder_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; give a folder"):
        scan(tmp_path / "nowhere" / "at" / "all")


def test_the_folder_of_a_run_is_no_data_set(tmp_path: Path) -> None:
    """`--resume RUN` takes RUN for the images."""
    data = make_toy(tmp_path / "run", num_normal=3, num_anomalous=2, size=16)
    (data / "config.yaml").touch()
    assert len(scan(data).samples) == 5
    (data / "environment.json").touch()
    with pytest.raises(ValueError, match=r"is the folder of a run, .* --out \S+run --resume"):
        scan(data)


def test_a_file_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "1.png")
    with pytest.raises(ValueError, match="neither a folder nor a CSV file"):
        scan(tmp_path / "1.png")


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images, only 2 other files") as caught:
        scan(tree(tmp_path, "a.txt", "b/c.gif"))
    assert ".webp" in str(caught.value)


def test_data_without_normal_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no normal images, only 2 anomalous"):
        scan(tree(tmp_path, "Positive/1.png", "Positive/2.png"))


def test_a_table_says_itself_what_is_normal(tmp_path: Path) -> None:
    tree(tmp_path, "a.png")
    (tmp_path / "mine.csv").write_text("path,label\na.png,0\n")
    with pytest.raises(ValueError, match="leave --normal out"):
        scan(tmp_path / "mine.csv", normal="good")


def test_samples_survive_their_csv(tmp_path: Path) -> None:
    root = tmp_path / "data"
    samples = (
        Sample(path=root / "Negative" / "a, b.png", label=NORMAL),
        Sample(
            path=root / "Positive/Ünï 1.png",
            label=ANOMALOUS,
            kind="rust",
            mask=root / "Mask/1.png",
            group="leaf 7",
            split="test",
        ),
        Sample(path=tmp_path / "elsewhere.png", label=NORMAL),
    )
    write_samples_csv(tmp_path / "run" / "samples.csv", root, samples)
    text = (tmp_path / "run" / "samples.csv").read_text(encoding="utf-8")
    assert text.startswith("path,label,kind,mask,group,split\n")
    assert "Positive/Ünï 1.png,1,rust,Mask/1.png,leaf 7,test\n" in text
    assert read_samples_csv(tmp_path / "run" / "samples.csv", root) == samples


def test_samples_move_with_their_root(tmp_path: Path) -> None:
    sample = Sample(path=tmp_path / "old" / "1.png", label=NORMAL)
    write_samples_csv(tmp_path / "samples.csv", tmp_path / "old", [sample])
    (moved,) = read_samples_csv(tmp_path / "samples.csv", tmp_path / "new")
    assert moved.path == tmp_path / "new" / "1.png"
