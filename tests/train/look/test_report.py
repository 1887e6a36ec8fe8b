import json
from dataclasses import dataclass
from pathlib import Path

from train.look.report import package_versions, versions_text, write_result


@dataclass
class Result:
    mean: float
    scores: list[float]


def test_versions_are_by_the_name_asked_for() -> None:
    found = package_versions("Box2D", "torch", "no-such-package")
    assert list(found) == ["Box2D", "torch", "no-such-package"]
    assert found["Box2D"][0].isdigit() and found["no-such-package"] == "not installed"
    assert versions_text({"a": "1", "b": "2.0"}) == "a 1 b 2.0"


def test_a_result_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    result = Result(1.5, [1.0, 2.0])
    write_result(None, result)
    write_result(tmp_path / "r.json", result)
    assert json.loads((tmp_path / "r.json").read_text()) == {"mean": 1.5, "scores": [1.0, 2.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
