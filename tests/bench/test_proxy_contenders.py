from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from tests.bench.proxy_contenders import ABOUT, ALONE, ALPHAS, PLAIN, PROXY, PUBLISHED, SERVER, TWO, Couple, start
from tests.bench.proxy_published import selection
from tests.bench.setup import Setup

COUPLE = Couple(Path("small"), {"a": Path("a"), "b": Path("b"), "c": Path("c")})


def test_every_adapter_comes_with_every_strength_before_any_pair_comes_again() -> None:
    asked = [COUPLE.model(PROXY, number) for number in range(COUPLE.pairs)]
    assert len(set(asked)) == COUPLE.pairs == 9
    assert {asked[number].split("~")[0] for number in range(3)} == {"a", "b", "c"}
    assert set(selection(asked).alphas) == set(ALPHAS)
    assert COUPLE.model(PROXY, COUPLE.pairs) == asked[0]


def test_who_is_steered_is_asked_the_same_and_the_others_for_the_plain_model() -> None:
    assert {COUPLE.model(name, 4) for name in (PROXY, TWO, PUBLISHED)} == {COUPLE.model(PROXY, 4)}
    assert "~" not in COUPLE.model(ALONE, 4)
    assert COUPLE.model(PLAIN, 4) == COUPLE.model(ALONE, 4)
    assert set(ABOUT) - set(SERVER) == {PUBLISHED}


@pytest.mark.parametrize(("name", "models"), [(ALONE, 0), (PROXY, 1), (TWO, 2)])
def test_a_server_gets_the_small_model_as_often_as_it_reads_it(tmp_path: Path, name: str, models: int) -> None:
    setup = Setup(Path("large"), "float32", ("--max-model-len", "512"))
    started = start(setup, name, COUPLE, Store.open(tmp_path), tmp_path)
    flags = started.command[: started.command.index("--")]
    assert flags.count("small") == models
    assert ("--proxy-small" in flags) == (models > 0)
    assert ("--proxy-expert" in flags) == (models > 1)
    assert list(started.command[-4:]) == ["--dtype", "float32", "--max-model-len", "512"]
