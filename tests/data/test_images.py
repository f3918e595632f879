from __future__ import annotations

import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from leanet.data.images import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    decode_image,
    encode_png,
    read_float_map,
    read_grey,
    read_image,
    read_map,
    read_mask,
    read_mode,
    read_size,
    resize_image,
    suffix_of,
    write_float_map,
    write_image,
    write_map,
)


def colors(height: int = 6, width: int = 9, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, array: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def grey_png(path: Path, codes: NDArray[np.uint16]) -> Path:
    """A 16-bit grey PNG written by hand, without Pillow."""
    height, width = codes.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in codes)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_a_lossless_file_gives_back_every_pixel(tmp_path: Path, suffix: str) -> None:
    image = colors()
    write_image(tmp_path / f"a{suffix}", image)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), image)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_can_be_written_and_read(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", np.full((8, 8, 3), 120, np.uint8))
    image = read_image(tmp_path / f"a{suffix}")
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, np.full((8, 8, 3), 120), atol=2)


def test_the_array_is_writable(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", colors())
    assert read_image(tmp_path / "a.png").flags.writeable


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = colors()[..., 0]
    image = read_image(saved(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(image, np.stack([grey] * 3, axis=-1))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = colors()[..., 0] > 127
    image = read_image(saved(tmp_path / "a.png", bits))
    np.testing.assert_array_equal(image[..., 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_and_hidden_colors_stay(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(colors()).convert(mode)
    picture.putalpha(Image.fromarray(colors(seed=1)[..., 0]))
    picture.save(tmp_path / "a.png")
    opaque = np.asarray(picture)[..., : len(mode) - 1]
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png"), np.broadcast_to(opaque, (6, 9, 3))
    )


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80"])
def test_palette_colors_are_looked_up(tmp_path: Path, transparency: int | bytes | None) -> None:
    indices = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    picture.putdata(indices.ravel().tolist())
    picture.save(tmp_path / "a.png", **options)
    expected = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)[indices]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    write = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    write.save(tmp_path / "a.jpg", quality=100)
    assert read_mode(tmp_path / "a.jpg") == "CMYK"
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [200, 40, 90], atol=4)


def test_sixteen_bit_grey_is_scaled_by_its_full_scale_and_not_clipped(tmp_path: Path) -> None:
    codes = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], np.uint16)
    image = read_image(grey_png(tmp_path / "a.png", codes))
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 1, 1, 128, 255, 255])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_sixteen_bit_tiff_equals_sixteen_bit_png(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(codes).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif"), read_image(grey_png(tmp_path / "a.png", codes))
    )


def test_wide_integers_hold_sixteen_bit_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], np.int32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0, :, 0], [0, 1, 255])


def test_float_grey_is_taken_from_zero_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0, 70000]], np.int32), "0 to 70000; allowed are 0 to 65535"),
        (np.array([[-3, 5]], np.int32), "-3 to 5"),
        (np.array([[0, 200.0]], np.float32), "0 to 200; allowed are 0 to 1"),
        (np.array([[0, np.nan]], np.float32), "nan"),
    ],
)
def test_grey_without_a_known_full_scale_is_refused(
    tmp_path: Path, values: NDArray[Any], said: str
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=said):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # white top left corner
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    saved(tmp_path / f"a{suffix}", stored, exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / f"a{suffix}"), upright, atol=20)
    assert read_size(tmp_path / f"a{suffix}") == (16, 32)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", colors())
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), colors())


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_truncated_file_is_unreadable(tmp_path: Path, format_name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(colors(64, 64)).save(buffer, format=format_name)
    path = tmp_path / "a.png"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert caught.value.reason in str(caught.value)


def test_an_empty_a_missing_and_a_text_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in [
        ("empty", "is empty"),
        ("missing", "no such file"),
        ("text", "not one of"),
    ]:
        for read in (read_image, read_mask, read_mode, read_size):
            with pytest.raises(UnreadableImageError, match=reason):
                read(tmp_path / f"{name}.png")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.gif", colors())
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="not one of PNG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [10_001, 30_000])
@pytest.mark.parametrize("action", ["ignore", "error"])  # Pillow's own limit is half a warning
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, side: int, action: Literal["ignore", "error"]
) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    with (
        pytest.raises(UnreadableImageError, match="the limit 100,000,000"),
        warnings.catch_warnings(action=action),
    ):
        read_image(tmp_path / "a.png")


def test_reading_leaves_pillow_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    write_image(tmp_path / "a.png", colors())
    read_image(tmp_path / "a.png")
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImageError(Path("a.png"), "empty")))
    assert (error.path, error.reason) == (Path("a.png"), "empty")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, bool])
def test_any_value_but_zero_is_in_a_lossless_mask(tmp_path: Path, dtype: type) -> None:
    values: NDArray[Any] = np.array([[0, 1, 0], [1, 0, 1]], dtype)
    Image.fromarray(values).save(tmp_path / "mask.tif")
    mask = read_mask(tmp_path / "mask.tif")
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, values != 0)


def test_color_and_palette_masks_count_whatever_is_not_black(tmp_path: Path) -> None:
    red = np.zeros((2, 3, 3), np.uint8)
    red[0, 1] = [1, 0, 0]
    saved(tmp_path / "color.png", red)
    red[0, 1] = [255, 0, 0]  # a color of Pillow's standard palette
    saved(tmp_path / "palette.png", red, mode="P")
    for name in ("color", "palette"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), red[..., 0] > 0)


def test_transparent_pixels_are_outside_a_mask(tmp_path: Path) -> None:
    rgba = np.full((2, 2, 4), 255, np.uint8)
    rgba[0, :, 3] = 0
    saved(tmp_path / "mask.png", rgba)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [[False, False], [True, True]])


def test_the_ringing_of_a_jpeg_mask_does_not_count(tmp_path: Path) -> None:
    drawn = np.zeros((32, 32), np.uint8)
    drawn[5:20, 11:27] = 255
    saved(tmp_path / "mask.jpg", drawn, quality=70)
    assert (np.asarray(Image.open(tmp_path / "mask.jpg")) != 0).sum() > (drawn != 0).sum()
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.jpg"), drawn > 0)


def test_resizing_gives_a_square(tmp_path: Path) -> None:
    assert resize_image(colors(5, 11), 16).shape == (16, 16, 3)
    flat = np.full((5, 11, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize_image(flat, 8), np.full((8, 8, 3), 77))


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    shrunk = resize_image(np.stack([checker] * 3, axis=-1), 8)
    means = checker.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(shrunk[..., 0], means, atol=3)


def test_resizing_leaves_the_input_alone() -> None:
    image = colors(8, 8)
    resized = resize_image(image, 8)
    resized[:] = 0
    np.testing.assert_array_equal(image, colors(8, 8))


def test_a_map_comes_back_within_half_a_step(tmp_path: Path) -> None:
    anomaly_map = np.random.default_rng(0).uniform(0, 7, (9, 5)).astype(np.float32)
    assert write_map(tmp_path / "map.png", anomaly_map, 7.0) == 0
    back = read_map(tmp_path / "map.png", 7.0)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, anomaly_map, atol=7 / 65535 / 2 * 1.01)


def test_map_codes_are_what_the_file_holds_and_clipped_pixels_are_counted(tmp_path: Path) -> None:
    anomaly_map = np.array([[0, 1, 2, 2.5, 100]], np.float32)
    assert write_map(tmp_path / "map.png", anomaly_map, 2.0) == 2
    codes = np.asarray(Image.open(tmp_path / "map.png"))
    np.testing.assert_array_equal(codes, [[0, 32768, 65535, 65535, 65535]])


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_map_that_cannot_be_coded_is_refused_and_nothing_is_written(
    tmp_path: Path, value: float
) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        write_map(tmp_path / "map.png", np.array([[0, value]], np.float32), 1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("full_scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_full_scale_must_be_positive(tmp_path: Path, full_scale: float) -> None:
    with pytest.raises(ValueError, match="full_scale must be positive"):
        write_map(tmp_path / "map.png", np.zeros((2, 2), np.float32), full_scale)


def test_an_eight_bit_image_is_no_map(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", colors())
    with pytest.raises(UnreadableImageError, match="16-bit grey, this file is RGB"):
        read_map(tmp_path / "a.png", 1.0)


def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", colors())

    def full_disk(self: Image.Image, path: Path, format: str) -> None:
        path.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_image(tmp_path / "a.png", colors(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors())


def test_wrong_arrays_and_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes uint8"):
        write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="takes uint8"):
        write_image(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="allowed suffixes"):
        write_image(tmp_path / "a.gif", colors())


def test_a_float_map_keeps_every_bit(tmp_path: Path) -> None:
    anomaly_map = np.array([[0.0, 1e-30, 151.37], [np.pi, 1e30, 2.5]], np.float32)
    write_float_map(tmp_path / "map.tiff", anomaly_map)
    np.testing.assert_array_equal(read_float_map(tmp_path / "map.tiff"), anomaly_map)
    write_image(tmp_path / "a.png", colors())
    with pytest.raises(UnreadableImageError, match="float grey, this file is RGB"):
        read_float_map(tmp_path / "a.png")


def test_grey_has_all_the_bits_of_its_file(tmp_path: Path) -> None:
    codes = np.array([[0, 1, 40000, 65535]], np.uint16)
    grey = read_grey(grey_png(tmp_path / "16.png", codes))
    np.testing.assert_allclose(grey, codes / 65535, atol=1e-7)
    eight = saved(tmp_path / "8.png", np.array([[[0] * 3, [51] * 3, [255] * 3]], np.uint8))
    np.testing.assert_allclose(read_grey(eight), [[0, 0.2, 1]], atol=1e-7)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_the_bytes_of_a_file_decode_to_what_the_file_does(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, colors())
    np.testing.assert_array_equal(decode_image(path.read_bytes()), read_image(path))
    assert IMAGE_FORMAT[suffix_of(path.read_bytes())] == IMAGE_FORMAT[suffix]


IMAGE_FORMAT = {suffix: Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES}


def test_bytes_are_turned_and_scaled_as_files_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "a.jpg", colors(), exif=exif)
    deep = grey_png(tmp_path / "b.png", np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    for path in (turned, deep):
        np.testing.assert_array_equal(decode_image(path.read_bytes()), read_image(path))


def test_bytes_that_are_no_image_are_refused_by_the_name_that_was_given() -> None:
    with pytest.raises(UnreadableImageError, match=r"image up\.png: the file is empty"):
        decode_image(b"", "up.png")
    with pytest.raises(UnreadableImageError, match="not one of PNG"):
        decode_image(b"text")
    with pytest.raises(UnreadableImageError, match="not one of PNG"):
        suffix_of(b"text")


def test_more_pixels_than_a_given_limit_are_refused_before_they_are_unpacked() -> None:
    header = struct.pack(">IIBBBBB", 5000, 3000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImageError, match="5000x3000 pixels are more than the limit 9"):
        decode_image(data, max_pixels=9)


def test_a_png_in_memory_keeps_every_pixel() -> None:
    np.testing.assert_array_equal(decode_image(encode_png(colors())), colors())
