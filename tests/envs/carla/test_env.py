"""The environment in the stand-in, with CARLA's own client."""

import gymnasium
import numpy as np
import pytest

import envs.carla
from envs.carla.ports import Address
from tests.envs.carla import drives
from tests.envs.carla.drives import in_child

pytest.importorskip("carla")


def test_importing_registers_the_environment_once() -> None:
    envs.carla.register()
    assert gymnasium.spec(envs.carla.ENV_ID).entry_point == "envs.carla.env:CarlaEnv"


def test_picture_state_and_frame_belong_together(simulator: Address) -> None:
    rows = in_child(drives.alignment, simulator)
    assert {row["camera"] for row in rows} == {"image", "semantic"}
    assert rows[-1]["speed"] > 5  # half a metre a frame: a picture of another frame would be seen to be
    frames = [row["frame"] for row in rows if row["camera"] == "image"]
    assert frames == list(range(1, 26))
    for row in rows:
        assert row["picture_frame"] == row["ticked"]
        assert row["off"] < 0.01
        assert row["state_speed"] == pytest.approx(row["speed"], abs=1e-4)
        assert row["inside"]
        assert row["shapes"] == {
            "image": ((3, 32, 32), "uint8"),
            "semantic": ((1, 32, 32), "uint8"),
            "birdseye": ((3, 32, 32), "uint8"),
            "state": ((22,), "float32"),
        }


def test_time_truncates_and_closing_leaves_nothing(simulator: Address) -> None:
    fields = {"max_frames": 30, "traffic": {"vehicles": 3}, "action_repeat": 4}
    end = in_child(drives.to_the_end, simulator, fields, 0.3, True)
    assert end["truncated"] and not end["terminated"] and end["info"]["reason"] == "time"
    assert end["frames"] == 30 and end["info"]["frames"] == 2  # 7 decisions of 4 frames, and what is left
    assert end["total"] == pytest.approx(end["summed"])
    assert end["after"] == "reset needed"
    assert end["first"]["route_completion"] == 0 and 0 < end["info"]["route_completion"] < 1
    assert end["left"] == {"actors": [], "synchronous": False, "step": None}


def test_a_collision_terminates(simulator: Address) -> None:
    fields = {"max_frames": 600, "ends": {"off_lane": 0.0}}
    end = in_child(drives.to_the_end, simulator, fields, 0.8, False)
    assert end["terminated"] and not end["truncated"] and end["info"]["reason"] == "collision"
    assert end["info"]["infractions"]["collision_static"] == 1
    assert end["info"]["terms"]["collision"] == -20
    assert end["left"]["actors"] == []


def test_following_the_route_reaches_the_goal(simulator: Address) -> None:
    fields = {"max_frames": 600, "route": {"length": 60.0}, "ends": {"red_light": False}}
    end = in_child(drives.to_the_end, simulator, fields, 0.3, True)
    assert end["terminated"] and end["info"]["reason"] == "goal"
    assert end["info"]["route_completion"] == 1 and end["info"]["terms"]["goal"] == 20


@pytest.mark.slow
def test_a_seed_gives_the_same_drive_in_another_simulator(simulator: Address) -> None:
    with drives.serving() as another:
        other = in_child(drives.same_again, another, 5)
    first = in_child(drives.same_again, simulator, 5)
    assert len(first) == 32
    assert first == other
    # An episode is not the one before, and another seed not the same.
    assert first[:16] != first[16:]
    assert in_child(drives.same_again, simulator, 6)[0] != first[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"max_frames": 20, "semantic": True, "birdseye": True},
        {"max_frames": 20, "action": "discrete", "state": False, "action_repeat": 2},
        {"max_frames": 20, "action": "3d", "image": False, "traffic": {"vehicles": 2}},
    ],
)
def test_gymnasiums_checker_is_content(simulator: Address, fields: dict[str, object]) -> None:
    assert in_child(drives.gymnasium_check, simulator, fields)


@pytest.mark.parametrize("action", ["2d", "3d", "discrete"])
def test_a_decision_lasts_its_frames_and_reports_what_was_done(simulator: Address, action: str) -> None:
    rows = in_child(drives.repeated, simulator, action)
    expected = {
        "2d": [-0.5, 0.5],
        "3d": [-0.5, 0.0, 0.5],
        "discrete": np.eye(21)[12].tolist(),
    }[action]
    for frames, moved, applied in rows:
        assert frames == moved == 3
        assert applied == pytest.approx(expected, abs=1e-6)


def test_mistakes_are_errors_of_one_line(simulator: Address) -> None:
    said = in_child(drives.mistakes, simulator)
    wanted = [
        "town Atlantis: expected one of",
        "weather Sharknado: expected one of",
        "vehicle vehicle.flying.carpet: ",
        "route start (900.0, 900.0): expected a place within 20 m of a lane",
        "reset option speed: expected one of autopilot_targets, drive_autopilot",
        "at least 10 m of road",
        "town Atlantis: expected one of",
    ]
    assert len(said) == len(wanted)
    for text, part in zip(said, wanted, strict=True):
        assert part in text and "\n" not in text


def test_a_client_that_died_synchronous_leaves_no_trouble(simulator: Address) -> None:
    assert in_child(drives.dies_synchronous, simulator) == 3
    end = in_child(drives.to_the_end, simulator, {"max_frames": 10}, 0.3, True)
    assert end["info"]["reason"] == "time"
    assert end["left"] == {"actors": [], "synchronous": False, "step": None}


@pytest.mark.slow
def test_episodes_change_towns(simulator: Address) -> None:
    driven = in_child(drives.two_towns, simulator)
    assert [town for town, _ in driven] == ["village", "town", "village"]
    assert all(metres > 3 for _, metres in driven)
    in_child(drives.to_the_end, simulator, {"max_frames": 3, "town": "town"}, 0.3, True)


def test_the_autopilot_drives_the_route_and_can_be_overridden(simulator: Address) -> None:
    drive = in_child(drives.by_autopilot, simulator)
    assert drive["end"]["reason"] == "goal"
    assert not {"collision_vehicle", "collision_static", "red_light"} & set(drive["end"]["infractions"])
    assert max(drive["speeds"]) > 5
    actions = np.array(drive["actions"])
    assert actions.shape[1] == 2 and np.abs(actions).max() <= 1 and actions.std(0).min() > 0.01
    assert np.allclose(drive["overridden"], [0.25, 0.5])
    assert "no autopilot" in drive["refused"]


def test_the_autopilot_drives_at_its_target(simulator: Address) -> None:
    drive = in_child(drives.in_manners, simulator)
    speeds, offsets = np.array(drive["speeds"]), np.array(drive["offsets"])
    assert speeds[60:120].mean() == pytest.approx(3.0, abs=0.4)
    assert offsets[90:120].mean() == pytest.approx(-0.5, abs=0.15)
    assert speeds[140:].max() < 0.1 and offsets[140:] == pytest.approx(-0.5, abs=0.2)
    assert "reset option autopilot_targets: expected drive_autopilot, too" in drive["refused"]


@pytest.mark.parametrize(
    ("state", "ends", "reason", "ran"),
    [("Red", True, "red_light", 1), ("Red", False, "goal", 1), ("Green", True, "goal", 0)],
)
def test_red_lights(simulator: Address, state: str, ends: bool, reason: str, ran: int) -> None:
    drive = in_child(drives.through_a_light, simulator, state, ends)
    assert drive["info"]["reason"] == reason and drive["terminated"]
    assert drive["info"]["infractions"].get("red_light", 0) == ran
    assert (drive["near"] > 0.5) == bool(ran) and (drive["terms"] < 0) == bool(ran)
