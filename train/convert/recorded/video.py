"""Pictures out of a video, by ffmpeg."""

from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from train.run.errors import DreamdriveError, one_line


def video_pictures(path: Path, expected: int, keep: slice) -> Iterator[Image.Image]:
    """The pictures `keep` of a video, in order.

    Args:
        path: of the video.
        expected: how many pictures it must have.
        keep: which to give; its start and stop are numbers.

    Raises:
        DreamdriveError: it is missing, unreadable, or has another number of pictures.
    """
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected a video")
    reader = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"]
    )
    count = 0
    try:
        width, height = next(reader)["size"]
        for data in reader:
            if keep.start <= count < keep.stop:
                frame = np.frombuffer(data, np.uint8).reshape(height, width, 3)
                yield Image.fromarray(frame)
            count += 1
    except (OSError, RuntimeError, StopIteration, KeyError, ValueError) as error:
        reason = one_line(error)[:200] or type(error).__name__
        raise DreamdriveError(f"{path}: broken, expected a readable video ({reason})") from error
    finally:
        reader.close()
    if count != expected:
        raise DreamdriveError(f"{path}: {count} pictures, expected {expected} as in the tokens")
