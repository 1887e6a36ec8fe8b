"""What the fields of the jobs' configs say of themselves: may they change on resume, may a run set them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

import pytest
from pydantic import BaseModel

from train.baselines.config import BaselineConfig
from train.collect.car_racing import RolloutsConfig
from train.collect.carla_drivers import CarlaCollectConfig
from train.online.config import OnlineConfig
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.options import build, changes, refuse_changes, to_yaml
from train.run.options.fields import options
from train.run.options.marks import FIXED, MAY_CHANGE, USERS
from train.tokenizer.image_config import ImageTokenizerTrainConfig
from train.tokenizer.token_codec_config import TokenCodecTrainConfig
from train.vla.config import TeacherConfig, VLATrainConfig
from train.world_model.config import WorldModelTrainConfig
from train.world_models.config import WorldModelAgentConfig

JOBS: list[type[BaseModel]] = [
    OnlineConfig,
    WorldModelTrainConfig,
    WorldModelAgentConfig,
    VLATrainConfig,
    TeacherConfig,
    BaselineConfig,
    RolloutsConfig,
    CarlaCollectConfig,
    TokenCodecTrainConfig,
]
# Texts in a config that are no program, no address, and no path that is written: what a job reads, and names.
READ_OR_NAMED = {
    "AutopilotCommandsConfig.speeds",
    "AutopilotCommandsConfig.places",
    "OnlineConfig.start",
    "CarlaConfig.town",
    "CarlaConfig.weather",
    "CarlaConfig.vehicle",
    "TrainerConfig.device",
    "WorldModelTrainConfig.data_path",
    "WorldModelTrainConfig.tokenizer",
    "WorldModelTrainConfig.observations",
    "WorldModelTrainConfig.device",
    "WorldModelAgentConfig.base",
    "RolloutsConfig.policy",
    "RolloutsConfig.mixture",
    "ShareConfig.policy",
    "EvolveConfig.start",
    "TrainingConfig.world_model_start",
    "TrainingConfig.device",
    "VLADataConfig.episodes",
    "VLADataConfig.imagined",
    "VLATrainConfig.start",
    "VLATrainConfig.world_model",
    "VLATrainConfig.device",
    "TeacherConfig.start",
    "TeacherConfig.world_model",
    "TeacherConfig.gauges",
    "TeacherConfig.episodes",
    "TeacherConfig.device",
    "BaselineConfig.in_dream",
    "BaselineConfig.device",
    "DreamStartsConfig.episodes",
    "TokenCodecTrainConfig.tokens",
    "TokenCodecTrainConfig.video",
    "TokenCodecTrainConfig.device",
}


class Part(BaseModel, extra="forbid", validate_assignment=True):
    fixed_on_resume: ClassVar[str] = "the weights would not fit"

    lr: Annotated[float, MAY_CHANGE] = 1e-5
    size: int = 3
    rooms: Annotated[int, FIXED + "the walls stand"] = 2


class Job(BaseModel, extra="forbid", validate_assignment=True):
    seed: int = 7
    part: Part = Part()
    command: Annotated[str, MAY_CHANGE, "only its user may say this program"] = ""
    file: Annotated[str, "only its user may say a path here"] = "a.h5"
    folder: Annotated[str, "only its user may say this folder"] = "output"


def holds_text(annotation: Any) -> bool:
    return annotation in (str, Path) or any(map(holds_text, get_args(annotation)))


def all_fields() -> Iterator[tuple[str, Any]]:
    for job in JOBS:
        for option in options(job):
            yield f"{option.owner.__name__}.{option.name.rpartition('.')[2]}", option.field


def test_no_field_that_holds_text_was_forgotten() -> None:
    """A new text field is a program, an address, a path that is written, or is listed as none of them."""
    unmarked = {
        name
        for name, field in all_fields()
        if holds_text(field.annotation) and not any(mark in USERS for mark in field.metadata)
    }
    assert unmarked - READ_OR_NAMED == set()


def test_marks_are_known() -> None:
    for name, field in all_fields():
        for mark in field.metadata:
            known = mark in (MAY_CHANGE, "orders an epoch", *USERS) or str(mark).startswith(FIXED)
            assert not isinstance(mark, str) or known, (name, mark)


def may_change() -> str:
    """The fields that may change on resume, a line each, of the jobs that refuse others."""
    jobs: list[type[BaseModel]] = [
        OnlineConfig,
        WorldModelTrainConfig,
        VLATrainConfig,
        TeacherConfig,
        BaselineConfig,
        ImageTokenizerTrainConfig,
        TokenCodecTrainConfig,
    ]
    lines = {
        f"{job.__name__}: {option.name}"
        for job in jobs
        for option in options(job)
        if MAY_CHANGE in option.field.metadata
    }
    return "\n".join(sorted(lines)) + "\n"


def test_the_fields_that_may_change_are_those_that_were_decided_on() -> None:
    """A line in `may_change.txt` is the decision that data or weights of before and after go together."""
    assert may_change() == Path(__file__).with_name("may_change.txt").read_text()


def test_changes_are_named_and_refused_unless_the_field_says_that_it_may_change() -> None:
    assert [str(c) for c in refuse_changes(Job(), Job(part=Part(lr=0.5)))] == ["part.lr: 1e-05 -> 0.5"]
    for changed, reason in (
        (Job(part=Part(size=4)), "part.size: 3 -> 4: the weights would not fit"),
        (Job(part=Part(rooms=4)), "part.rooms: 2 -> 4: the walls stand"),
        (Job(seed=8), "seed: 7 -> 8: what was learnt so far came of it"),
    ):
        with pytest.raises(DreamdriveError, match=f"cannot resume with another {reason}"):
            refuse_changes(Job(), changed)
    assert [str(c) for c in changes(Job(), {**Job().model_dump(), "new": 1})] == ["new: None -> 1"]


@pytest.mark.parametrize(
    ("config", "option", "value", "may"),
    [
        ("carla", "env.camera.fov", "60", False),
        ("carla", "env.above.metres", "40", False),
        ("carla", "env.route.ahead_spacing", "2", False),
        ("carla", "env.route.spacing", "2", False),
        ("carla", "env.vehicle", "vehicle.audi.tt", False),
        ("carla", "env.town", "village", True),
        ("carla", "env.reward.speed", "0.1", True),
        ("carla", "agent.world_model.vector_weight", "3", True),
        ("carla", "agent.world_model.dynamics.deter", "32", False),
        ("car_racing", "env.backend", "envpool", False),
        ("car_racing", "env.off_road_cost", "1", True),
        ("car_racing", "agent.behaviour.entropy", "0.1", True),
        ("car_racing", "agent.behaviour.units", "32", False),
        ("car_racing", "replay.capacity_bytes", "3000000", False),
        ("car_racing_lstm", "agent.world_model.temperature", "0.7", True),
        ("car_racing_lstm", "agent.world_model.tokenizer.grid", "1", False),
    ],
)
def test_what_a_resume_of_an_agent_may_change(config: str, option: str, value: str, may: bool) -> None:
    file = Path(__file__).parents[3] / "configs" / f"{config}.yaml"
    old, new = build(OnlineConfig, file), build(OnlineConfig, file, {option: value})
    if may:
        assert [change.name for change in refuse_changes(old, new)] == [option]
    else:
        with pytest.raises(DreamdriveError, match=f"cannot resume with another {option}: "):
            refuse_changes(old, new)


def test_a_run_of_somebody_else_sets_no_program_address_or_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = Job(command="rm {port}", file="../b.h5", folder="/etc", part=Part(size=5))
    run = Run.create(tmp_path / "run", "job", theirs)
    assert run.config(Job) == Job(part=Part(size=5))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "command 'rm {port}' is not taken from a run" in said[0]
    assert run.own_config(Job) == theirs


def test_on_resume_what_only_its_user_may_set_is_said_again(tmp_path: Path) -> None:
    base = Job(command="simulate", file="b.h5", seed=8).model_dump()
    with pytest.raises(DreamdriveError, match="command 'simulate': only its user .* with --command"):
        build(Job, None, {}, base)
    assert build(Job, None, {"command": "simulate"}, base).command == "simulate"
    file = tmp_path / "own.yaml"
    file.write_text(to_yaml(Job(command="another")))
    assert build(Job, file, {}, base).command == "another"
    # A name in the run's own folder is no path.
    assert build(Job, None, {"command": "x"}, base).file == "b.h5"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("env: {}\n", {}),
        ("env: {servers: {}}\n", {}),
        ("env: {servers: {start_seconds: 30}}\n", {}),
        ("", {"env": "{kind: carla}"}),
        ("", {"env.servers": "{}"}),
        ("", {"env.servers": "{start_seconds: 30}"}),
        ("", {"env.servers.start_seconds": "30"}),
    ],
)
def test_what_stands_around_a_program_does_not_say_the_program(
    file: str, said: dict[str, str], tmp_path: Path
) -> None:
    base = {"env": {"kind": "carla", "servers": {"command": "simulate {port}"}}}
    own = tmp_path / "own.yaml"
    own.write_text(file)
    with pytest.raises(DreamdriveError, match="env.servers.command .* only its user"):
        build(OnlineConfig, own, said, base)
    own.write_text("env: {servers: {command: 'mine {port}'}}\n")
    config = build(OnlineConfig, own, {}, base)
    assert config.env.model_dump()["servers"]["command"] == "mine {port}"


def test_one_address_of_a_list_does_not_say_the_others() -> None:
    base = {"env": {"kind": "carla", "num_envs": 2, "servers": {"addresses": ["a:1", "b:2"]}}}
    with pytest.raises(DreamdriveError, match="env.servers.addresses .* only its user"):
        build(OnlineConfig, None, {"env.servers.addresses.0": "c:3"}, base)
    said = build(OnlineConfig, None, {"env.servers.addresses": "['c:3', 'd:4']"}, base)
    assert said.env.model_dump()["servers"]["addresses"] == ["c:3", "d:4"]


def test_parts_in_lists_are_walked() -> None:
    class Holder(BaseModel):
        jobs: list[Job] = []

    class Box(BaseModel):
        holder: Holder = Holder()

    base = Box(holder=Holder(jobs=[Job(), Job(command="x")])).model_dump()
    with pytest.raises(DreamdriveError, match="holder.jobs.1.command 'x'"):
        build(Box, None, {}, base)
