"""Vision-language-action policies: instructions, demonstrations, learning, evaluation, and imagination."""

from train.vla.guidance import WorldModelGuidedTrainer
from train.vla.policy import VLAPolicy, load_policy

__all__ = ["VLAPolicy", "WorldModelGuidedTrainer", "load_policy"]
