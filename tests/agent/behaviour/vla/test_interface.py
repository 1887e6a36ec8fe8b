import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from agent.behaviour.vla.interface import (
    ACTION,
    IMAGE,
    IMAGES,
    PAD,
    STATE,
    TASK,
    ChunkPolicy,
    VLABatch,
    observation_key,
    require_policy,
)
from agent.behaviour.vla.model import VLAConfig


class Still:
    def reset(self) -> None:
        return None

    def select_action(self, batch: VLABatch) -> Tensor:
        return torch.zeros(1, 3)

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        return torch.zeros(1, 8, 3)


def test_keys_are_those_of_lerobot() -> None:
    assert IMAGE == IMAGES + "front" == "observation.images.front"
    assert (STATE, TASK, ACTION, PAD) == ("observation.state", "task", "action", "action_is_pad")


def test_the_picture_is_the_front_camera_and_a_vector_keeps_its_name() -> None:
    assert observation_key("image") == IMAGE
    assert observation_key("state") == STATE
    assert observation_key("speed") == "observation.speed"


def test_an_object_with_the_methods_is_a_policy() -> None:
    still = Still()
    assert isinstance(still, ChunkPolicy) and require_policy(still) is still  # type: ignore[redundant-expr]


def test_a_missing_method_is_named() -> None:
    with pytest.raises(ValueError, match="Still has no method save_pretrained"):
        require_policy(Still(), "save_pretrained")
    with pytest.raises(ValueError, match="object has no method reset"):
        require_policy(object())


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"patch": 7}, "patch: 7"),
        ({"vision": "features"}, "feature_size: 0"),
        ({"heads": 3}, "heads: 3"),
        ({"expert_width": 30, "expert_heads": 4}, "expert_heads: 4"),
        ({"expert_width": 5, "expert_heads": 1}, "expert_width: 5"),
        ({"execute": 6, "delay": 3}, "execute: 6"),
        ({"execute": 1, "delay": 2}, "delay: 2"),
        ({"execute": 9}, "execute: 9"),
        ({"background": True}, "background"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        VLAConfig.model_validate(fields)
