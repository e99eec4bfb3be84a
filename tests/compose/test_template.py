"""The commented job."""

from pathlib import Path

import pytest
import yaml

from loraloom.compose.errors import InvalidSpec
from loraloom.compose.spec import JobSpec, Part, read_spec
from loraloom.compose.template import TEMPLATE, write_template


def fields_of(part: type[Part], given: dict[str, object], where: str = "") -> list[str]:
    """The fields that a description does not mention."""
    missing = []
    for name, field in part.model_fields.items():
        if name not in given:
            missing.append(where + name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Part):
            value = given[name]
            assert isinstance(value, dict)
            missing += fields_of(field.annotation, value, f"{where}{name}.")
    return missing


def test_it_is_a_job_that_names_every_field_with_its_default(tmp_path: Path) -> None:
    write_template(tmp_path / "job.yaml")
    spec = read_spec(tmp_path / "job.yaml")
    given = yaml.safe_load(TEMPLATE)
    assert fields_of(JobSpec, given) == ["base"]
    assert "# base:" in TEMPLATE
    assert spec == JobSpec(examples=spec.examples)


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("mine")
    with pytest.raises(InvalidSpec, match="is there already"):
        write_template(tmp_path / "job.yaml")
    assert (tmp_path / "job.yaml").read_text() == "mine"
