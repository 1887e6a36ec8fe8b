import json
from pathlib import Path

import pytest
import torch

from tests.train.vla.road import Road, drive
from tests.train.vla.test_imagined import CONFIG
from tests.train.vla.test_probes import CONFIG as FIT
from train.cli import main
from train.collect import imagined as job
from train.collect.imagined import collect_imagined
from train.data.episode_store import EpisodeFolder
from train.data.episodes import write_episode
from train.drive.agents import TrainedModel
from train.run.errors import DreamdriveError
from train.vla.imagined import ImaginedReport
from train.vla.probes import load_dream_probes


@pytest.fixture
def drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of drives on the road, whose world model every run holds."""

    def road(path: Path, device: str = "auto") -> TrainedModel:
        shapes = {"image": (3, 8, 8)} if path.name == "road" else {"token": (1,)}
        return TrainedModel(None, Road(), shapes, torch.device("cpu"), 0, 12.5, None)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "load_world_model", road)
    folder = tmp_path / "drives"
    folder.mkdir()
    for number in range(8):
        write_episode(folder / f"drive_{number}.npz", drive(number))
    return folder


def test_a_folder_of_drives_becomes_a_folder_of_dreams(drives: Path, tmp_path: Path) -> None:
    report = collect_imagined(
        Path("road"),
        EpisodeFolder(drives).paths,
        tmp_path / "dreams",
        config=CONFIG.model_copy(update={"fit": FIT}),
    )
    written = list(EpisodeFolder(tmp_path / "dreams"))
    assert len(written) == report.kept > 10
    assert all(episode.extras["imagined"].all() for episode in written)
    told = json.loads((tmp_path / "dreams" / "report.json").read_text())
    assert told["kept"] == report.kept and told["dreams"] == 8 * 3 * 2
    gauges = load_dream_probes(tmp_path / "dreams", Road())
    assert gauges.scores == told["probe"]
    # With the same gauges, of fewer drives.
    fewer = collect_imagined(
        Path("road"),
        EpisodeFolder(drives).paths,
        tmp_path / "fewer",
        None,
        tmp_path / "dreams",
        2,
        config=CONFIG,
    )
    assert fewer.dreams == 2 * 3 * 2 and load_dream_probes(tmp_path / "fewer", Road()).limit == gauges.limit
    with pytest.raises(DreamdriveError, match="already holds episodes"):
        collect_imagined(Path("road"), EpisodeFolder(drives).paths, tmp_path / "dreams")


def test_what_does_not_fit_is_named(drives: Path, tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="observes token: expected pictures"):
        collect_imagined(Path("words"), EpisodeFolder(drives).paths, tmp_path / "dreams")
    assert not (tmp_path / "dreams").exists()


def test_reports_add_up() -> None:
    one = ImaginedReport(4, 2, 40, 30, 1, 1, 0, 12, {"slow": 3}, {}, {"speed": 0.5})
    both = one + ImaginedReport(1, 1, 10, 10, 0, 0, 0, 5, {"slow": 1, "fast": 2}, {"left": 1})
    assert (both.dreams, both.kept, both.steps, both.kept_steps, both.labelled) == (5, 3, 50, 40, 17)
    assert both.speeds == {"slow": 4, "fast": 2} and both.places == {"left": 1}
    assert both.kept_share == 0.8 and both.probe == {"speed": 0.5}
    assert "80% of their steps kept" in both.summary()


def test_the_commands_take_their_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, drives: Path, tmp_path: Path
) -> None:
    assert main(["collect", "imagined", "--help"]) == 0
    assert "--policy_share" in capsys.readouterr().out
    assert main(["train", "vla-teacher", "--help"]) == 0
    assert "--temperature" in capsys.readouterr().out
    given = ["collect", "imagined", "--model", "road", "--episodes", str(drives)]
    assert main([*given, "--output", str(tmp_path / "o"), "--horizon", "1"]) == 1
    assert "horizon" in capsys.readouterr().err
    assert main(["train", "vla-teacher", "--start", str(tmp_path), "--run", str(tmp_path / "run")]) == 1
    assert "no policy" in capsys.readouterr().err
