"""ShanghaiTech Campus: 13 scenes filmed by fixed cameras, normal to train, partly not to test.

    training/videos/SS_CCC.avi                       or, after extraction, training/frames/SS_CCC/
    testing/frames/SS_CCCC/NNN.jpg
    testing/test_pixel_mask/SS_CCCC.npy              [T, H, W], nonzero = anomalous
    testing/test_frame_mask/SS_CCCC.npy              [T], nonzero = anomalous

SS is the scene, CCC or CCCC the clip. Every scene becomes a data set of its own in the layout of
MVTec AD, as each has a background of its own. A frame is anomalous where its
pixel mask marks something; clips without a pixel mask go by their frame mask. Of every clip the
frames 0, `every`, 2 `every`, ... are taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.data.images import IMAGE_SUFFIXES, write_image
from leanet.data.scan import natural_key
from leanet.files import link_or_copy
from leanet.progress import Progress

EVERY: Final = 5
FFMPEG: Final = (
    "for v in training/videos/*.avi; do d=training/frames/$(basename $v .avi); mkdir -p $d; "
    "ffmpeg -i $v -q:v 2 -start_number 0 $d/%04d.jpg; done"
)
_LISTED: Final = 5
Tell = Callable[[str], None]


class Truth(NamedTuple):
    """What is known about the frames of a test clip: pixel masks [T, H, W] or labels [T]."""

    pixels: NDArray[Any] | None
    frames: NDArray[Any] | None

    def mask(self, number: int) -> NDArray[np.uint8] | None:
        """[H, W], 255 = anomalous; None if nothing is marked."""
        if self.pixels is None or not (marked := np.asarray(self.pixels[number]) != 0).any():
            return None
        return np.where(marked, 255, 0).astype(np.uint8)

    def anomalous(self, number: int) -> bool:
        """By the frame's label, for clips without pixel masks."""
        return self.frames is not None and bool(self.frames[number])


def unpack_shanghaitech(source: Path, out: Path, every: int, tell: Tell) -> None:
    """`out/SS/{train/good, test/good, test/anomalous, ground_truth/anomalous}` for every scene with
    clips to learn from and to test.

    Raises:
        ValueError: missing frames or masks, or masks of another length than their clip.
    """
    if every < 1:
        raise ValueError(f"--every {every}: give 1 (all frames) or more")
    testing = _clips(source / "testing" / "frames")
    if not testing:
        raise ValueError(
            f"{source} has no testing/frames/SS_CCCC/*.jpg; give the folder of ShanghaiTech Campus "
            "that holds training/ and testing/"
        )
    training = _trained_clips(source)
    truths = {clip: _truth(source / "testing", clip, len(f)) for clip, f in testing.items()}
    scenes = sorted({_scene(clip) for clip in testing} & {_scene(clip) for clip in training})
    dropped = sorted({_scene(clip) for clip in (*testing, *training)} - set(scenes))
    if dropped:
        tell(f"left out scene(s) without training or test clips: {', '.join(dropped)}")
    kept = [clips for clips in (*training.items(), *testing.items()) if _scene(clips[0]) in scenes]
    with Progress("unpacking", total=sum(len(frames[::every]) for _, frames in kept)) as bar:
        for clip, frames in kept:
            for number in range(0, len(frames), every):
                _place(frames[number], out / _scene(clip), clip, number, truths.get(clip))
                bar.advance()


def _place(frame: Path, out: Path, clip: str, number: int, truth: Truth | None) -> None:
    """One frame, of a test clip if there is a truth, and its mask."""
    name = f"{clip}_{frame.stem}"
    mask = None if truth is None else truth.mask(number)
    if truth is None:
        place = out / "train" / "good"
    else:
        marked = mask is not None or truth.anomalous(number)
        place = out / "test" / ("anomalous" if marked else "good")
    link_or_copy(frame, place / f"{name}{frame.suffix}")
    if mask is not None:
        write_image(out / "ground_truth" / "anomalous" / f"{name}_mask.png", mask)


def _scene(clip: str) -> str:
    return clip.partition("_")[0]


def _clips(folder: Path) -> dict[str, list[Path]]:
    """Clip -> its frames in natural order."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in folder.glob("*/*"):
        if file.suffix.lower() in IMAGE_SUFFIXES and "_" in file.parent.name:
            found[file.parent.name].append(file)
    return {
        clip: sorted(found[clip], key=lambda file: natural_key(PurePath(file.name)))
        for clip in sorted(found)
    }


def _trained_clips(source: Path) -> dict[str, list[Path]]:
    """The training clips; refuses videos whose frames have not been extracted."""
    clips = _clips(source / "training" / "frames")
    videos = [file.stem for file in sorted((source / "training" / "videos").glob("*.avi"))]
    missing = [video for video in videos if video not in clips]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(videos)} training videos have no frames in training/frames "
            f"({', '.join(missing[:_LISTED])}{', ...' if len(missing) > _LISTED else ''}), and "
            f"videos are not decoded here.\nExtract them in {source} with: {FFMPEG}"
        )
    if not clips:
        raise ValueError(f"{source} has neither training/frames/SS_CCC/*.jpg nor training/videos")
    return clips


def _truth(testing: Path, clip: str, num_frames: int) -> Truth:
    pixels = _read(testing / "test_pixel_mask" / f"{clip}.npy", 3, num_frames)
    frames = _read(testing / "test_frame_mask" / f"{clip}.npy", 1, num_frames)
    if pixels is None and frames is None:
        raise ValueError(
            f"the test clip {clip} has no mask: neither test_pixel_mask/{clip}.npy nor "
            f"test_frame_mask/{clip}.npy in {testing}; extract the archive again"
        )
    return Truth(pixels, None if pixels is not None else frames)


def _read(path: Path, num_dims: int, num_frames: int) -> NDArray[Any] | None:
    """An array from a file, left on the disk where it can be; None without a file."""
    if not path.exists():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no array of numbers ({error}); download it again") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} holds several arrays, not one; download it again")
    if array.ndim != num_dims or len(array) != num_frames:
        wanted = f"[{num_frames}]" if num_dims == 1 else f"[{num_frames}, H, W]"
        raise ValueError(
            f"{path} has the shape {list(array.shape)}, but its clip has {num_frames} frames and "
            f"needs {wanted}; extract the frames and masks of one release"
        )
    return np.asarray(array) if num_dims == 1 else array
