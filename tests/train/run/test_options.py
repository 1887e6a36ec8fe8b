from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, model_validator

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.lstm import LSTMConfig
from agent.world_model.rssm import RSSMConfig
from train.online.config import OnlineConfig
from train.run.errors import DreamdriveError
from train.run.options import build, flatten, help_text, parse_overrides, to_yaml


class Plain(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """No quantizer. Nothing is rounded."""

    kind: Literal["none"] = "none"
    """Which quantizer."""
    width: int = Field(8, ge=1)
    """Width (channels)."""


class Fsq(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """Finite scalar quantization."""

    kind: Literal["fsq"] = "fsq"
    """Which quantizer."""
    levels: tuple[int, ...] = (8, 5)
    """Levels of each dimension."""


class Net(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """A network."""

    lr: float = Field(4e-5, gt=0)
    """Learning rate, per update."""
    name: str = "net"
    """Name."""
    act: Literal["silu", "relu"] = "silu"
    """Activation."""
    quantizer: Annotated[Plain | Fsq, Field(discriminator="kind")] = Plain(width=32)
    """How codes are made."""


class Top(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """A job."""

    seed: int = 0
    """Seed."""
    compile: bool = True
    """Whether to compile."""
    limit: float | None = None
    """Time limit (minutes)."""
    net: Net = Net(lr=0.5)
    """The network."""
    extra: Net | None = None
    """Another."""
    many: list[Plain] = [Plain(), Plain(width=4)]
    """Some."""

    @model_validator(mode="after")
    def _even(self) -> "Top":
        if self.seed == 13:
            raise ValueError("seed 13 is unlucky, expected another")
        return self


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def test_later_layers_win_and_the_rest_keeps_its_defaults(tmp_path: Path) -> None:
    path = file(tmp_path, "net: {lr: 1e-4, name: file}\nlimit: 3\n")
    config = build(
        Top, path, {"net.name": "123", "limit": "null", "compile": "false"}, {"seed": 5, "limit": 9}
    )
    assert (config.seed, config.net.lr, config.net.name, config.limit) == (5, 1e-4, "123", None)
    assert config.compile is False
    assert config.net.quantizer == Plain(width=32)  # the default of the place, not of the class


def test_numbers_in_the_short_form_are_numbers(tmp_path: Path) -> None:
    assert build(Top, file(tmp_path, "seed: 3e5"), {"net.lr": "2E-3"}) == Top(seed=300_000, net=Net(lr=2e-3))


@pytest.mark.parametrize("order", [1, -1])
def test_another_kind_in_a_union_starts_from_its_own_defaults(order: int) -> None:
    given = dict([("net.quantizer.levels", "[3, 3]"), ("net.quantizer.kind", "fsq")][::order])
    assert build(Top, overrides=given).net == Net(lr=0.5, quantizer=Fsq(levels=(3, 3)))
    assert build(Top, overrides={"net.quantizer.width": "2"}).net.quantizer == Plain(width=2)


def test_parts_that_are_absent_and_items_of_lists_can_be_set() -> None:
    config = build(Top, overrides={"extra.lr": "1", "many.1.width": "9"})
    assert config.extra == Net(lr=1.0) and config.many == [Plain(), Plain(width=9)]
    with pytest.raises(DreamdriveError, match="item 2 of a list of 2"):
        build(Top, overrides={"many.2.width": "9"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("net: {lrr: 1}", "net.lrr: unknown field (did you mean net.lr?)"),
        ("width: 1", "width: unknown field"),
        ("lr: 1", "lr: unknown field (did you mean net.lr?)"),
        ("seed: fast", "seed: expected a whole number, not 'fast'"),
        ("seed: 1.5", "seed: expected a whole number, not 1.5"),
        ("net: 3", "net: expected fields and their values, not 3"),
        ("compile: maybe", "compile: expected true or false, not 'maybe'"),
        ("net: {lr: 0}", "net.lr: must be greater than 0, not 0"),
        ("net: {act: tanh}", "net.act: must be 'silu' or 'relu', not 'tanh'"),
        ("net: {quantizer: {kind: fsq, levels: 3}}", "net.quantizer.levels: expected a list, not 3"),
        ("net: {quantizer: {kind: fsq, width: 3}}", "net.quantizer.width: unknown field"),
        ("many: [{width: 1}, {width: x}]", "many.1.width: expected a whole number, not 'x'"),
        ("seed: 13", "seed 13 is unlucky, expected another"),
        ("seed: 1\nseed: 2", "line 2: not valid YAML (seed stands twice)"),
        ("net: [", "line 1: not valid YAML"),
        ("- 1", "expected fields and their values (a mapping), not a list"),
        ("a: !!python/object/apply:os.getcwd []", "line 1: not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_file_field_and_expectation(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = file(tmp_path, text)
    with pytest.raises(DreamdriveError) as caught:
        build(Top, path)
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_a_mistake_in_an_option_names_the_option(tmp_path: Path) -> None:
    path = file(tmp_path, "seed: 1")
    for name, value, complaint in [
        ("net.foo", "1", "--net.foo: unknown field"),
        ("net.lr", "x", "--net.lr: expected a number, not 'x'"),
        ("net.quantizer.kind", "vq", "--net.quantizer.kind: net.quantizer: "),
        ("seed.x", "3", "--seed.x: seed: expected a whole number"),
        ("net.lr", "[", "--net.lr: line 1: not valid YAML"),
    ]:
        with pytest.raises(DreamdriveError) as caught:
            build(Top, path, {name: value})
        assert str(caught.value).startswith(complaint)


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(DreamdriveError, match=r"^--seed: .*and 1 more problem\)"):
        build(Top, overrides={"seed": "x", "compile": "maybe"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="no config file at .*none.yaml"):
        build(Top, tmp_path / "none.yaml")


def test_options_of_the_command_line_are_taken_apart() -> None:
    assert parse_overrides(["--a.b", "-1", "--c=x=y", "--d-e", ""]) == {"a.b": "-1", "c": "x=y", "d_e": ""}
    for words, complaint in [
        (["--a"], "--a: needs a value"),
        (["--a", "--b", "1"], "--a: needs a value"),
        (["x"], "x: unexpected argument"),
        (["--a", "1", "--a=2"], "--a: given twice"),
    ]:
        with pytest.raises(DreamdriveError, match=complaint):
            parse_overrides(words)
    with pytest.raises(DreamdriveError, match="contradicts another option"):
        build(Top, overrides={"net": "{lr: 1}", "net.lr": "2"})


def test_a_written_config_reads_back_equal(tmp_path: Path) -> None:
    config = build(Top, overrides={"net.quantizer.kind": "fsq", "net.lr": "1e-5", "extra.name": "'1'"})
    assert build(Top, file(tmp_path, to_yaml(config))) == config
    assert flatten(config)["net.quantizer.levels"] == [8, 5]


def test_an_option_that_was_renamed_is_known_by_its_former_name(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("agent:\n  world_model:\n    dynamics_weight: 0.5\n")
    given: dict[str, dict[str, str]] = {"file": {}, "both": {"agent.world_model.prior_weight": "0.75"}}
    assert build(OnlineConfig, file, given["file"]).agent.world_model.prior_weight == 0.5
    assert build(OnlineConfig, file, given["both"]).agent.world_model.prior_weight == 0.75
    option = {"agent.world_model.dynamics_weight": "0.25"}
    assert build(OnlineConfig, file, option).agent.world_model.prior_weight == 0.25
    written = OnlineConfig.model_validate({"agent": {"world_model": {"dynamics_weight": 0.5}}})
    assert "prior_weight: 0.5" in to_yaml(written) and "dynamics_weight" not in to_yaml(written)


def test_help_names_every_field_with_type_meaning_limits_and_default() -> None:
    text = help_text(Top)
    lines = text.splitlines()
    at = lines.index("  --net.lr NUMBER")
    assert lines[at + 1].strip() == "Learning rate, per update. [> 0; default: 0.5]"
    for line in ["  --net.act silu|relu", "  --limit NUMBER|null", "  --net.quantizer.levels [WHOLE,...]"]:
        assert line in lines
    assert "net.quantizer: No quantizer" in lines and "net.quantizer: Finite scalar quantization" in lines
    at = lines.index("  --net.quantizer.width WHOLE")
    assert lines[at + 1].strip() == "Width (channels). [>= 1; default: 32]"
    assert max(map(len, lines)) <= 110


def test_a_config_of_before_means_what_it_meant_where_a_kind_can_now_be_chosen(tmp_path: Path) -> None:
    path = file(tmp_path, "agent: {world_model: {units: 7}, behaviour: {layers: 2}}")
    config = build(OnlineConfig, path, {"agent.behaviour.units": "3"})
    assert config.agent.world_model == RSSMConfig(units=7)
    assert config.agent.behaviour == ActorCriticConfig(units=3, layers=2)
    assert build(OnlineConfig, file(tmp_path, to_yaml(config))) == config


def test_the_kind_of_world_model_and_behaviour_can_be_chosen() -> None:
    chosen = {
        "agent.world_model.kind": "lstm",
        "agent.world_model.hidden_size": "16",
        "agent.world_model.tokenizer.grid": "4",
        "agent.behaviour.kind": "controller",
    }
    agent = build(OnlineConfig, overrides=chosen).agent
    assert agent.world_model == LSTMConfig(hidden_size=16, tokenizer=FSQVAEConfig(grid=4))
    assert agent.behaviour == ControllerConfig()
    for overrides, complaint in [
        ({"agent.world_model.kind": "vq"}, "expected one of the kinds 'rssm', 'lstm', 'transformer', not"),
        ({"agent.world_model.hidden_size": "3"}, "unknown field of this kind"),
        ({"agent.world_model": "3"}, "expected fields and their values, not 3"),
        ({"agent.behaviour.units": "x"}, "--agent.behaviour.units: expected a whole number"),
    ]:
        with pytest.raises(DreamdriveError, match=complaint):
            build(OnlineConfig, overrides=overrides)


def test_help_names_the_fields_of_every_kind() -> None:
    lines = help_text(OnlineConfig).splitlines()
    for name in ("world_model.dynamics.deter", "world_model.tokenizer.grid", "behaviour.hidden_units"):
        assert f"  --agent.{name} WHOLE" in lines
    for kind in (
        "world_model.kind rssm",
        "world_model.kind lstm",
        "world_model.kind transformer",
        "behaviour.kind controller",
    ):
        assert f"  --agent.{kind}" in lines
