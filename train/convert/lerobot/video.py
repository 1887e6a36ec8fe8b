"""Pictures into an MP4 and back, picture by picture at known moments."""

from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from train.run.errors import DreamdriveError, one_line

_ACCURATE = ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int"]
"""How ffmpeg turns RGB into YUV and back: without shortcuts, which cost about 1 dB each way."""


class VideoConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How pictures are encoded (H.264 in MP4).

    On small pictures the half-size colours of yuv420p cost more than the compression: CarRacing's, 64 x 64,
    come back with 35 dB on average (lossless otherwise: 36), with yuv444p and the same crf 14 with 43 dB.
    """

    pixels: Literal["yuv444p", "yuv420p", "rgb24"] = "yuv444p"
    """Full colour; colours at half size, which every browser plays and LeRobot records; or RGB."""
    crf: int = Field(14, ge=0, le=51)
    """Constant rate factor: lower is nearer to the original; rgb24 with 0 is exact."""
    keyframes: int = Field(2, ge=1)
    """Pictures from one that can be read by itself to the next; LeRobot's own recordings have 2."""
    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "medium"
    """How long the encoder searches for a smaller file."""


class VideoWriter:
    """Encodes pictures into one file as they come; `close` finishes it.

    Args:
        path: of the .mp4 file; its folder is made.
        height, width: of the pictures [px].
        fps: pictures a second, with two decimals at most (ffmpeg is told no more).
        config: how.

    Raises:
        DreamdriveError: yuv420p and an odd height or width.
    """

    def __init__(self, path: Path, height: int, width: int, fps: float, config: VideoConfig) -> None:
        if config.pixels == "yuv420p" and (height % 2 or width % 2):
            raise DreamdriveError(
                f"{path}: {width} x {height} pixels, expected even sides for pixels yuv420p"
            )
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        options = ["-crf", str(config.crf), "-g", str(config.keyframes), "-preset", config.preset]
        self._encoder: Generator[None, Any, None] = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=fps,
            codec="libx264rgb" if config.pixels == "rgb24" else "libx264",
            pix_fmt_out=config.pixels,
            macro_block_size=1,
            quality=None,
            output_params=[*options, *_ACCURATE, "-threads", "1"],
            ffmpeg_log_level="error",
        )
        self._encoder.send(None)

    def add(self, pictures: NDArray[np.uint8]) -> None:
        """Append pictures (T, 3, H, W).

        Raises:
            DreamdriveError: the encoder refuses, for example because the disk is full.
        """
        try:
            for picture in pictures:
                self._encoder.send(np.ascontiguousarray(picture.transpose(1, 2, 0)))  # (H, W, 3)
        except OSError as error:
            reason = one_line(error)[:300]
            raise DreamdriveError(f"{self.path}: the video encoder stopped ({reason})") from error

    def stop(self) -> None:
        """End the encoder, whatever became of the file."""
        self._encoder.close()

    def close(self) -> None:
        """Finish the file.

        Raises:
            DreamdriveError: it was not written.
        """
        self.stop()
        if not self.path.is_file() or not self.path.stat().st_size:
            raise DreamdriveError(f"{self.path}: the video encoder wrote nothing")


def read_pictures(
    path: Path, start: float, stop: float | None, fps: float, expected: int
) -> NDArray[np.uint8]:
    """The pictures of a video from one moment to another, (T, 3, H, W).

    Args:
        path: of the video.
        start: of the first picture [s].
        stop: of the first picture that is not wanted any more [s]; None goes to the end.
        fps: pictures a second.
        expected: how many there must be, at least 1.

    Raises:
        DreamdriveError: the video is missing or broken, or has another number of pictures there.
    """
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected a video")
    # Half a picture early: rounded times must not decide which picture is the first. ffmpeg decodes from the
    # keyframe before and drops what is earlier than asked for.
    begin = max(0.0, start - 0.5 / fps)
    seek = ["-ss", f"{begin:.6f}"] if begin else []
    until = [] if stop is None else ["-t", f"{stop - 0.5 / fps - begin:.6f}"]
    # One more than expected shows that there are too many.
    limit = ["-frames:v", str(expected + 1), "-fps_mode", "passthrough"]
    reader = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgb24", input_params=[*seek, *until], output_params=[*limit, *_ACCURATE]
    )
    pictures: list[NDArray[np.uint8]] = []
    try:
        width, height = next(reader)["size"]
        for data in reader:
            frame = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            pictures.append(frame.transpose(2, 0, 1))  # (3, H, W)
    except (OSError, RuntimeError, StopIteration, KeyError, ValueError, IndexError) as error:
        reason = one_line(error)[-200:] or type(error).__name__
        raise DreamdriveError(f"{path}: broken, expected a readable video ({reason})") from error
    finally:
        reader.close()
    if len(pictures) != expected:
        found = f"more than {expected}" if len(pictures) > expected else str(len(pictures))
        raise DreamdriveError(
            f"{path}: {found} pictures from second {start:g} on, expected {expected} as rows in the table"
        )
    return np.stack(pictures)
