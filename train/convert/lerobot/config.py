"""How episodes become a LeRobot data set."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from train.convert.lerobot.layout import Version
from train.convert.lerobot.tasks import TaskConfig
from train.convert.lerobot.video import VideoConfig


class ExportConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How episodes become a LeRobot data set."""

    version: Version = "v3.0"
    """Of the layout: v3.0 has many episodes in a file, v2.1 a file an episode."""
    fps: float | None = Field(None, gt=0)
    """Decisions a second, to two decimals; null takes it from the extra `times` of the first episode."""
    robot_type: str = "car"
    """What `meta/info.json` calls the vehicle."""
    camera: str = Field("front", pattern=r"[A-Za-z0-9_\-]+")
    """Name of the picture: `observation.images.NAME`."""
    action: Literal["taken", "expert"] = "taken"
    """What the column `action`, a policy's target, holds; expert takes the extra `expert_actions`, and those
    taken become `extra.taken_actions`."""
    action_names: list[str] | None = None
    """Of the entries of an action; null numbers them."""
    state_names: list[str] | None = None
    """Of the entries of `observation.state`; null numbers them."""
    extras: list[str] | None = None
    """Extras that become columns `extra.NAME`; null takes all with a value or a vector a row."""
    data_files_size_in_mb: int = Field(100, gt=0)
    """A table is not continued beyond this [MB], v3.0 only."""
    video_files_size_in_mb: int = Field(200, gt=0)
    """A video is not continued beyond this [MB], v3.0 only."""
    video: VideoConfig = VideoConfig()
    """How pictures are encoded."""
    tasks: TaskConfig = TaskConfig()
    """Where the sentences come from."""

    @field_validator("fps")
    @classmethod
    def _two_decimals(cls, fps: float | None) -> float | None:
        if fps is not None and round(fps, 2) != fps:
            raise ValueError("expected two decimals at most: the video's times could not follow")
        return fps
