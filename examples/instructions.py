"""Instructions: sentences for a label, the label of a sentence, and what a drive turned out to obey."""

import numpy as np

from train.data.episodes import Episode
from train.language.hindsight import CAR_RACING_SPEEDS, Labels, label_rows
from train.language.instructions import lookup_labels, sample_sentence


def main() -> None:
    """Run the example; it prints what it shows."""
    rng = np.random.default_rng(0)
    wanted = Labels(speed="slow", place="left")
    sentences = [sample_sentence(wanted, rng) for _ in range(3)]
    for sentence in sentences:
        print(f"{sentence!r} means {lookup_labels(sentence)}")
    # Two seconds of driving slowly on the left half of the road, in rows of 0.08 s.
    ROWS = 25
    episode = Episode(
        {"image": np.zeros((ROWS, 3, 8, 8), np.uint8)},
        np.zeros((ROWS, 2), np.float32),
        np.zeros(ROWS, np.float32),
        np.arange(ROWS) == 0,
        np.zeros(ROWS, bool),
        {
            "speeds": np.full(ROWS - 1, 16.0),
            "offsets": np.full(ROWS - 1, 3.0),
            "half_widths": np.full(ROWS - 1, 6.7),
        },
    )
    print("in hindsight it obeyed:", label_rows(episode, CAR_RACING_SPEEDS, window=12)[0])


if __name__ == "__main__":
    main()
