"""From options to settings."""

from pathlib import Path

import pytest

from loraloom.server.cli.options import configured
from loraloom.server.cli.parser import parse


def test_options_are_flags(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_MODEL", "other")
    line = "serve tiny --adapters store --max-loras 2 --queue-timeout 1.5 --cache c"
    configuration = configured(parse(line.split()).options)
    given = {name for name, origin in configuration.origins.items() if origin == "flag"}
    assert given == {"model", "adapters", "max_loras", "queue_timeout", "cache"}
    settings = configuration.settings
    assert (settings.model, settings.max_loras, settings.queue_timeout) == ("tiny", 2, 1.5)
    assert settings.cache == Path("c")


def test_a_command_without_such_options_has_settings_too(home: Path) -> None:
    (home / "c.yaml").write_text("adapters: s3://bucket/store\n")
    settings = configured(parse(["adapters", "list", "--config", "c.yaml"]).options).settings
    assert settings.adapters == "s3://bucket/store"


def test_a_variable_that_is_no_setting_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(parse(["demo"]).options)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LORALOOM_PRT", "1")
    configured(parse(["demo"]).options)
    assert capsys.readouterr().err == "loraloom: ignored, as there is no such setting: LORALOOM_PRT\n"
