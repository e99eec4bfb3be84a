from pathlib import Path

from PIL import Image

from tests.bench.plots import COLOURS, Curve, Panel, Plot, drawn


def test_every_curve_is_in_the_picture_in_its_own_colour(tmp_path: Path) -> None:
    sizes, seconds = (1, 10, 100), (0, 60)
    by_size = Panel(
        "adapters",
        "requests per second",
        (Curve("uniform", sizes, (5, 4, 3), ((4, 6), (3, 5), (2, 4))), Curve("Zipf", sizes, (6, 6, 5))),
        log=True,
    )
    over_time = Panel("minutes", "MiB", (Curve("engine", seconds, (700, 710)),))
    path = drawn(Plot("scaling", "How it scales", (by_size, over_time)), tmp_path / "new" / "scaling.png")
    with Image.open(path) as picture:
        assert picture.width > picture.height > 300
        counts = {colour: count for count, colour in picture.convert("RGB").getcolors(2**24)}
    for colour in COLOURS[:2]:
        assert counts[tuple(bytes.fromhex(colour[1:]))] > 100
