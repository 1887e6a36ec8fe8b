"""Pictures through an MP4: right order, right number, at the right moments, little lost."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.convert.lerobot.drives import pictures, psnr
from train.convert.lerobot.video import VideoConfig, VideoWriter, read_pictures
from train.run.errors import DreamdriveError


def write(path: Path, parts: list[np.ndarray], fps: float = 12.5, config: VideoConfig | None = None) -> Path:
    writer = VideoWriter(path, *parts[0].shape[2:], fps, config or VideoConfig())  # type: ignore[call-arg]
    for part in parts:
        writer.add(part)
    writer.close()
    return path


@pytest.mark.parametrize("fps", [10, 12.5, 29.97])
def test_parts_of_a_file_are_found_by_their_seconds(tmp_path: Path, fps: float) -> None:
    parts = [pictures(rows, number) for number, rows in enumerate((7, 1, 12, 5))]
    path = write(tmp_path / "a" / "v.mp4", parts, fps)
    begin = 0
    for part in parts:
        end = begin + len(part)
        again = read_pictures(path, begin / fps, end / fps, fps, len(part))
        assert again.shape == part.shape and psnr(part, again).min() > 35
        begin = end
    whole = read_pictures(path, 0.0, None, fps, begin)
    assert psnr(np.concatenate(parts), whole).min() > 35
    # The red of a picture is its row: two neighbours are 5 apart.
    red = whole[:, 0].mean(axis=(1, 2))
    assert abs(red - np.concatenate([part[:, 0, 0, 0] for part in parts])).max() < 2


def test_rgb_is_exact_and_any_size_will_do(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 3, 15, 21), dtype=np.uint8)
    path = write(tmp_path / "v.mp4", [noise], config=VideoConfig(pixels="rgb24", crf=0))
    np.testing.assert_array_equal(read_pictures(path, 0.0, None, 12.5, 9), noise)


def test_half_size_colours_need_even_sides(tmp_path: Path) -> None:
    config = VideoConfig(pixels="yuv420p")
    with pytest.raises(DreamdriveError, match=r"v\.mp4: 5 x 4 pixels, expected even sides"):
        VideoWriter(tmp_path / "v.mp4", 4, 5, 10, config)
    smooth = pictures(6, 1)
    path = write(tmp_path / "v.mp4", [smooth], config=config)
    assert psnr(smooth, read_pictures(path, 0.0, None, 12.5, 6)).min() > 30


@pytest.mark.parametrize(("expected", "told"), [(9, "8 pictures"), (7, "more than 7 pictures")])
def test_another_number_of_pictures_is_told(tmp_path: Path, expected: int, told: str) -> None:
    path = write(tmp_path / "v.mp4", [pictures(8, 0)])
    with pytest.raises(DreamdriveError, match=rf"v\.mp4: {told} from second 0 on, expected {expected}"):
        read_pictures(path, 0.0, None, 12.5, expected)


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match=r"v\.mp4: missing"):
        read_pictures(tmp_path / "v.mp4", 0.0, None, 10, 3)
    (tmp_path / "v.mp4").write_bytes(b"no video at all")
    with pytest.raises(DreamdriveError, match=r"v\.mp4: broken, expected a readable video"):
        read_pictures(tmp_path / "v.mp4", 0.0, None, 10, 3)
