import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from loraloom.compose.report.page import CLIP, clipped, page, shown, system_row
from loraloom.compose.result import Result, Sample
from tests.compose.report.found import POOL, result_of, trials_of, without_in_context

VOID = {"meta", "br", "hr", "img", "link", "input"}
LONG = f"{'a' * 64}/{'b' * 64}@12"


class Reader(HTMLParser):
    """Reads a page, sure that every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(result: Result, **search: int) -> Reader:
    return Reader(page(result, trials_of(tuple(result.chosen.weights), **search)))


@pytest.mark.parametrize(
    ("result", "word", "mark"),
    [
        (result_of(), "Better", "✓"),
        (result_of(effect=-0.3), "Not better", "✕"),
        (result_of(effect=0.05, examples=8), "Undecidable with 8 examples", "?"),
    ],
)
def test_the_verdict_comes_first_in_words_and_signs(result: Result, word: str, mark: str) -> None:
    text = read(result).text
    assert f"{mark} {word} {result.verdict.reason}" in text
    assert text.index(result.verdict.reason) < text.index("What the search found")


def test_the_sections_follow_in_order() -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", page(result_of(), trials_of()))
    assert headings == [
        "What the search found",
        "What it is made of",
        "How it does on held-out examples",
        "What it answers",
        "Where it comes from",
    ]


def test_all_that_was_found_is_there() -> None:
    result = result_of()
    text = read(result).text
    for adapter, weight in result.chosen.weights.items():
        assert f"{adapter} {weight:+.6f}" in text
    for system in ("composition", "no adapter", "best single adapter", "uniform mean", "examples in the prompt"):
        assert system in text
    for held_out in result.held_out.values():
        assert f"{held_out.score:.3f}" in text
    for said in ('"model": "weekday@3"', result.chosen.expression, "812", "9b" * 32, "2.13.0", result.job):
        assert said in text


def test_a_composition_that_is_not_published_is_requested_by_its_expression() -> None:
    result = result_of(effect=-0.3)
    text = read(result).text
    assert f'"model": "{result.chosen.expression}"' in text
    assert "not published: the job says only if it is better" in text


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = page(result_of(), trials_of())
    reader = Reader(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert not {tag for tag, _ in reader.seen} & {"script", "link", "img", "iframe", "object", "embed", "image"}
    assert all(not str(value).startswith("//") for _, attrs in reader.seen for value in attrs.values())


def test_ids_are_unique() -> None:
    ids = [attrs["id"] for _, attrs in read(result_of(), folds=3).seen if "id" in attrs]
    assert len(ids) == len(set(ids)) > 100


ATTACK = "<script>alert('1')</script>\"'&amp;{{ 7 * 7 }}"


def test_what_others_wrote_is_text() -> None:
    sample = Sample(ATTACK, ATTACK, {"composition": ATTACK, "nothing": ATTACK * 20})
    result = replace(
        result_of(),
        samples=(sample,),
        publication=ATTACK,
        provenance={ATTACK: ATTACK, "pool": [{"adapter": ATTACK}]},
        verdict=replace(result_of().verdict, reason=ATTACK),
    )
    reader = read(result)
    assert "script" not in {tag for tag, _ in reader.seen}
    assert "".join(reader.texts).count(ATTACK) >= 8 + 20


def test_blanks_and_all_languages_are_kept() -> None:
    sample = Sample("日付\n    – eingerückt\t|", "x", {"composition": "مرحبا 🙂"})
    texts = "".join(read(replace(result_of(), samples=(sample,))).texts)
    assert "日付\n    – eingerückt\t|" in texts
    assert "مرحبا 🙂" in texts


def test_right_answers_are_marked() -> None:
    sample = shown(Sample("p", " 42\n", {"best_single": "43", "other": "4 2", "composition": "42"}))
    assert [(each.name, each.right) for each in sample.answers] == [
        ("composition", True),
        ("best single adapter", False),
        ("other", False),
    ]
    text = read(result_of()).text
    assert text.count("✓ right") == 2
    assert text.count("✕ wrong") == 4


@pytest.mark.parametrize("length", [0, CLIP, CLIP + 1, 5 * CLIP])
def test_a_long_text_is_folded_but_whole(length: int) -> None:
    text = clipped("x" * length)
    assert text.whole == "x" * length
    assert text.is_long == (length > CLIP)
    assert text.whole.startswith(text.start)


def test_what_was_not_measured_says_why() -> None:
    result = without_in_context(result_of())
    assert system_row(result, "in_context").detail.startswith("left out: with 40 examples")
    assert "left out: with 40 examples" in read(result).text


def test_a_tiny_p_is_not_zero() -> None:
    assert system_row(result_of(), "nothing").p == "< 0.001"


def test_bytes_are_the_same_every_time() -> None:
    assert page(result_of(), trials_of(folds=2)) == page(result_of(), trials_of(folds=2))


@pytest.mark.parametrize("pool", [POOL[:2], (*(f"org/adapter-{place}@1" for place in range(58)), LONG)])
def test_pools_of_any_size_fit(pool: tuple[str, ...]) -> None:
    reader = read(result_of(pool=pool), budget=5)
    assert all(name in reader.text for name in pool)


def test_a_job_that_found_next_to_nothing_fits() -> None:
    result = result_of(examples=1)
    assert "No answers were kept" in Reader(page(replace(result, samples=()), trials_of()[:1])).text


def test_huge_losses_fit() -> None:
    result = result_of()
    huge = replace(result.held_out["mean"], score=1e6, low=1e6, high=1e6, loss=1e6)
    text = read(replace(result, held_out={**result.held_out, "mean": huge})).text
    assert "1.0e+06" in text
