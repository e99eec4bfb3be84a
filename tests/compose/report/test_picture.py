import io
from dataclasses import replace

import pytest

from loraloom.compose.report.picture import DPI, HEIGHT, WIDTH, picture
from loraloom.compose.result import Result
from loraloom.compose.trials import Trial
from tests.compose.report.found import result_of, trials_of, without_in_context

MANY = (*(f"organisation/adapter-{place}@1" for place in range(29)), f"{'a' * 64}/{'b' * 64}@12")


def pixels(data: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


@pytest.mark.parametrize(
    ("result", "trials"),
    [
        (result_of(), trials_of()),
        (without_in_context(result_of(effect=0.05, examples=8)), trials_of(folds=8)),
        (result_of("exact_match", effect=-0.3, pool=MANY), trials_of(MANY)),
        (replace(result_of(examples=1), publication="veröffentlicht: 日付 $x$"), trials_of()[:1]),
    ],
)
def test_a_picture_has_its_size_whatever_was_found(result: Result, trials: list[Trial]) -> None:
    assert pixels(picture(result, trials)) == (WIDTH * DPI, HEIGHT * DPI)


def test_it_is_the_same_every_time_and_another_for_another_verdict() -> None:
    result = result_of()
    assert picture(result, trials_of()) == picture(result, trials_of())
    other = replace(result, verdict=replace(result.verdict, name="not better"))
    assert picture(other, trials_of()) != picture(result, trials_of())


def test_the_text_ends_above_the_charts() -> None:
    """A reason of any length, in signs that the font lacks, neither warns nor reaches the charts."""
    result = result_of(effect=-0.3)
    long = replace(result, verdict=replace(result.verdict, reason="日付 and so on and on. " * 100))
    from PIL import Image, ImageChops

    images = [Image.open(io.BytesIO(picture(each, trials_of()))).convert("L") for each in (result, long)]
    changed = ImageChops.difference(*images).getbbox()
    assert changed is not None
    assert changed[3] < images[0].height * 0.22
