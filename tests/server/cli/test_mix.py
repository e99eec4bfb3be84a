"""`loraloom adapters mix`."""

from pathlib import Path

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from tests.server.cli.conftest import Loraloom


@pytest.fixture
def store(loraloom: Loraloom, home: Path, adapters: list[Path], base: Path) -> Store:
    """The adapters a and b of one base."""
    for folder, name in zip(adapters, ("a", "b"), strict=False):
        assert loraloom("adapters", "add", folder, "--name", name, "--base", base).status == 0
    return Store.open(home / ".local/share/loraloom/store")


def test_mixing(loraloom: Loraloom, store: Store, base: Path) -> None:
    outcome = loraloom("adapters", "mix", "0.6*a+-0.4*b@1", "--name", "team/both", "--tag", "stable")
    record = store.resolve(Adapter("team/both"))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == (
        f"mixed team/both@1  sha256:{record.digest[:12]}\n"
        f"0.6*a@1+-0.4*b@1: rank {record.rank}, relative error of truncation 0\n"
    )
    assert record.base == store.resolve(Adapter("a")).base is not None
    assert (record.base_name, bool(record.by)) == (str(base), True)
    assert store.tags("team/both") == {"latest": 1, "stable": 1}
    again = loraloom("adapters", "mix", "0.6*a+-0.4*b@1", "--name", "team/both")
    assert again.out.startswith("there already: team/both@1")


def test_truncating(loraloom: Loraloom, store: Store) -> None:
    assert loraloom("adapters", "mix", "a+b", "--name", "small", "--rank", "1").status == 0
    assert loraloom("adapters", "mix", "svd(rank=1):a+b", "--name", "same").status == 0
    small, same = store.resolve(Adapter("small")), store.resolve(Adapter("same"))
    assert small.rank == same.rank == 1
    assert small.digest == same.digest
    assert loraloom("adapters", "mix", "ties(density=0.5):a+b", "--name", "ties").status == 0


def test_a_base_that_is_not_there_any_more(loraloom: Loraloom, store: Store, base: Path) -> None:
    """It is checked at its first use then."""
    base.rename(base.with_name("moved"))
    assert loraloom("adapters", "mix", "a+b", "--name", "both").status == 0
    assert store.resolve(Adapter("both")).base is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a++b", "--name", "x"], "is not a valid selection"),
        (["a+b~0.5", "--name", "x"], "a mixture has no proxy strength"),
        (["a+nobody", "--name", "x"], "there is no adapter 'nobody'"),
        (["a+-1*a", "--name", "x"], "all weights of this mixture are zero"),
        (["1e308*a+b", "--name", "x"], "give one from -100 to 100"),
        (["a+b", "--name", "x y"], "is not a valid selection"),
        (["a+b", "--name", "x", "--base", "nowhere"], "there is no base model 'nowhere'"),
        (["ties:a+b", "--name", "x"], "ties needs"),
    ],
)
def test_what_is_refused(loraloom: Loraloom, store: Store, words: list[str], message: str) -> None:
    outcome = loraloom("adapters", "mix", *words)
    assert outcome.status == 1
    assert message in outcome.err
    assert store.names() == ["a", "b"]


def test_adapters_of_different_bases(loraloom: Loraloom, store: Store, adapters: list[Path], tmp_path: Path) -> None:
    store.publish(adapters[0], "foreign", base=_other_base(), base_name="other")
    outcome = loraloom("adapters", "mix", "a+foreign", "--name", "x")
    assert outcome.status == 1
    assert "were published for different bases: only adapters of one base can be mixed" in outcome.err


def _other_base() -> BaseFingerprint:
    return BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, tokenizer="e" * 64)
