"""Settings: which layer wins, where each value came from, and what is said of a wrong one."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.server.errors import InvalidSettings
from loraloom.server.settings import HANDOFF, Handoff, Settings, configure, handed_over


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no variable that says anything."""
    for name in [name for name in os.environ if name.startswith("LORALOOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_layer_wins_over_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loraloom.yaml").write_text("port: 1\nmax_loras: 2\nserved_name: file\n")
    monkeypatch.setenv("LORALOOM_PORT", "3")
    monkeypatch.setenv("LORALOOM_MAX_LORAS", "4")
    configuration = configure({"port": 5, "served_name": None})
    got = configuration.settings
    assert (got.port, got.max_loras, got.served_name, got.host) == (5, 4, "file", "127.0.0.1")
    assert {name: configuration.origins[name] for name in ("port", "max_loras", "served_name", "host")} == {
        "port": "flag",
        "max_loras": "environment LORALOOM_MAX_LORAS",
        "served_name": "file loraloom.yaml",
        "host": "default",
    }


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_PORT", "")
    assert configure({}).settings.port == 8000


def test_an_unknown_variable_is_told_and_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_PRT", "1")
    monkeypatch.setenv(HANDOFF, "{}")
    assert configure({}).ignored == ("LORALOOM_PRT",)


def test_the_file_may_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loraloom.yaml").write_text("port: 1\n")
    (folder / "other.yaml").write_text("port: 2\n")
    (folder / "third.yaml").write_text("port: 3\n")
    monkeypatch.setenv("LORALOOM_CONFIG", "other.yaml")
    assert configure({}).settings.port == 2
    assert configure({}).ignored == ()
    third = configure({}, folder / "third.yaml")
    assert (third.settings.port, third.origins["port"]) == (3, f"file {folder / 'third.yaml'}")


def test_a_named_file_has_to_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match=r"no configuration file missing\.yaml: correct --config"):
        configure({}, Path("missing.yaml"))
    monkeypatch.setenv("LORALOOM_CONFIG", str(folder))
    with pytest.raises(InvalidSettings, match="correct LORALOOM_CONFIG"):
        configure({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"port: [", "cannot be read as YAML"),
        (b"\xff\xfe\xff", "cannot be read as YAML"),
        (b"- port\n", "is no mapping: write a setting a line, such as `port: 8000`"),
        (b"8000", "is no mapping"),
        (b"prt: 1", r"prt \(file loraloom.yaml\): there is no such setting; there are model, served_name, host"),
        (b"8000: 1", r"8000 \(file loraloom.yaml\): there is no such setting"),
        (b"port: web", r"port \(file loraloom.yaml\): Input should be a valid integer"),
        (b"adapters:", r"adapters \(file loraloom.yaml\): Input should be a valid string"),
    ],
)
def test_a_file_that_cannot_be_used(folder: Path, text: bytes, message: str) -> None:
    (folder / "loraloom.yaml").write_bytes(text)
    with pytest.raises(InvalidSettings, match=message):
        configure({})


def test_an_empty_file_says_nothing(folder: Path) -> None:
    (folder / "loraloom.yaml").write_text("# port: 1\n")
    assert configure({}).settings == Settings()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": 65536}, r"port \(flag\): Input should be less than or equal to 65535"),
        ({"max_lora_rank": "12"}, r"max_lora_rank \(flag\): must be 'auto' or one of 8, 16, 32, 64, 128, 256, 320"),
        ({"max_lora_rank": "large"}, r"max_lora_rank \(flag\): must be 'auto' or one of 8"),
        ({"max_loras": 65}, r"max_cpu_loras \(default\): must be at least max_loras \(65\)"),
        ({"max_loras": 0}, r"max_loras \(flag\): Input should be greater than or equal to 1"),
        ({"queue_timeout": float("inf")}, r"queue_timeout \(flag\): Input should be a finite number"),
        ({"open_paths": ["load"]}, r"open_paths \(flag\): paths start with '/': load"),
        ({"port": "a", "max_loras": "b"}, r"port \(flag\): .*; max_loras \(flag\): "),
        ({"proxy_expert": "x"}, r"proxy_expert \(flag\): needs proxy_small too, the model that it was tuned from"),
        ({"proxy_alpha": 5}, r"proxy_max_alpha \(default\): must be at least the default strength proxy_alpha, 5"),
        ({"proxy_alpha": -2, "proxy_max_alpha": 1}, r"proxy_max_alpha \(flag\): must be at least .* proxy_alpha, -2"),
        ({"proxy_alpha": float("nan")}, r"proxy_alpha \(flag\): Input should be a finite number"),
        ({"proxy_max_alpha": 0}, r"proxy_max_alpha \(flag\): Input should be greater than 0"),
    ],
)
def test_a_wrong_value_is_told_with_its_origin(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        configure(flags)


@pytest.mark.parametrize(("text", "rank"), [("auto", "auto"), ("16", 16), ("512", 512)])
def test_ranks(text: str, rank: int | str) -> None:
    assert configure({"max_lora_rank": text}).settings.max_lora_rank == rank


def test_commas_separate_in_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loraloom.yaml").write_text("allowed_sources: [s3://one/, s3://two/]\n")
    monkeypatch.setenv("LORALOOM_OPEN_PATHS", "/load, /metrics")
    got = configure({}).settings
    assert got.open_paths == ("/load", "/metrics")
    assert got.allowed_sources == ("s3://one/", "s3://two/")


def test_a_tilde_is_the_users_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    (folder / "loraloom.yaml").write_text(
        "model: ~/tiny\nadapters: ~/store\ncache: ~/cache\njobs: ~/jobs\nproxy_small: ~/small\nproxy_expert: ~/tuned\n"
    )
    got = configure({}).settings
    assert (got.model, got.adapters, got.cache) == ("/home/ada/tiny", "/home/ada/store", Path("/home/ada/cache"))
    assert got.jobs == Path("/home/ada/jobs")
    assert (got.proxy_small, got.proxy_expert) == ("/home/ada/small", "/home/ada/tuned")


def test_the_usual_folders_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    got = configure({}).settings
    assert (got.adapters, got.cache) == ("/data/loraloom/store", Path("/home/ada/.cache/loraloom"))
    assert got.jobs == Path("/data/loraloom/jobs")


@pytest.mark.parametrize(
    ("model", "served", "name"),
    [
        ("org/tiny", None, "tiny"),
        ("/models/tiny/", None, "tiny"),
        ("/models/tiny", "sql-base", "sql-base"),
        (".", None, "here"),
        ("../here", None, "here"),
    ],
)
def test_the_name_of_the_base(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, served: str | None, name: str
) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    assert Settings(model=model, served_name=served).base_name == name


def test_proxy_tuning_is_a_matter_of_one_setting() -> None:
    assert Settings().proxy_small is None
    got = configure({"model": "m", "proxy_small": "org/tiny/"}).settings
    assert (got.small_name, got.proxy_expert, got.proxy_alpha, got.proxy_max_alpha) == ("tiny", None, 1.0, 4.0)
    far = configure({"proxy_small": "s", "proxy_expert": "e", "proxy_alpha": -9, "proxy_max_alpha": 9}).settings
    assert (far.proxy_expert, far.proxy_alpha) == ("e", -9.0)


TEXTS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1).filter(lambda text: text[0] != "~")


@settings(max_examples=50, deadline=None)
@given(model=TEXTS, port=st.integers(0, 65535), queue=st.floats(0.001, 1e9), paths=st.lists(TEXTS.map("/{}".format)))
def test_what_is_printed_is_a_file_that_says_the_same(model: str, port: int, queue: float, paths: list[str]) -> None:
    before = configure({"model": model, "port": port, "queue_timeout": queue, "open_paths": paths})
    Path("printed.yaml").write_text("\n".join(before.lines()), encoding="utf-8")
    after = configure({}, Path("printed.yaml"))
    assert after.settings == before.settings
    assert set(after.origins.values()) == {"file printed.yaml"}


def test_every_setting_is_printed_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_OPEN_PATHS", "/load")
    lines = configure({"port": 1}).lines()
    assert set(yaml.safe_load("\n".join(lines))) == set(Settings.model_fields)
    assert "port: 1  # flag" in lines
    assert 'open_paths: ["/load"]  # environment LORALOOM_OPEN_PATHS' in lines
    assert 'host: "127.0.0.1"  # default' in lines


def test_a_handoff_arrives_as_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Handoff(Settings(model="m", open_paths=("/load",), cache=Path("/c"), max_lora_rank=16), socket=7, control=8)
    (variable,) = sent.environment().items()
    monkeypatch.setenv(*variable)
    assert handed_over() == sent


def test_without_a_supervisor_there_is_no_handoff() -> None:
    assert handed_over() is None


def test_an_empty_small_model_is_none() -> None:
    assert Settings(proxy_small="").proxy_small is None
