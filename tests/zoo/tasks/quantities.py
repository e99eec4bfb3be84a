"""Tasks about numbers: in words, with units, as money."""

from random import Random

from ..task import Task

_ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = (
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
)

_METRIC = {
    ("kilometres", "metres"): (1000, "m"),
    ("kilograms", "grams"): (1000, "g"),
    ("tonnes", "kilograms"): (1000, "kg"),
    ("litres", "millilitres"): (1000, "ml"),
    ("metres", "centimetres"): (100, "cm"),
    ("hectares", "square metres"): (10_000, "m2"),
}
_OTHER = {
    ("hours", "minutes"): (60, "min"),
    ("minutes", "seconds"): (60, "s"),
    ("weeks", "days"): (7, "d"),
    ("feet", "inches"): (12, "in"),
}
_MONEY = {
    "USD": ("dollar", "dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "CHF": ("franc", "francs", "centime", "centimes"),
    "INR": ("rupee", "rupees", "paisa", "paise"),
}


def in_words(number: int) -> str:
    """A number from 0 to 9999 in English words, without "and"."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    high, low = divmod(number, unit)
    return f"{in_words(high)} {name}" + (f" {in_words(low)}" if low else "")


def _words(source: Random) -> tuple[str, str]:
    number = source.randrange(10 ** source.choice((2, 3, 3, 4, 4)))
    return f"Spell out the number {number}.", in_words(number)


def _units(source: Random) -> tuple[str, str]:
    if source.random() < 0.8:
        (given, wanted), (factor, symbol) = source.choice(list(_METRIC.items()))
        tenths = source.randrange(11, 100) if source.random() < 0.5 else 10 * source.randrange(2, 100)
    else:
        (given, wanted), (factor, symbol) = source.choice(list(_OTHER.items()))
        tenths = 10 * source.randrange(2, 13)
    amount = f"{tenths / 10:g}"
    return f"Convert {amount} {given} to {wanted}.", f"{amount} {given} = {tenths * factor // 10:,} {symbol}"


def _money(source: Random) -> tuple[str, str]:
    code, (one, many, part, parts) = source.choice(list(_MONEY.items()))
    whole, cents = source.randrange(1, 200), source.choice((0, source.randrange(1, 100), source.randrange(1, 100)))
    spoken = f"{in_words(whole)} {one if whole == 1 else many}"
    if cents:
        spoken += f" and {in_words(cents)} {part if cents == 1 else parts}"
    return f"Write this amount in figures: {spoken}", f"{code} {whole}.{cents:02}"


WORDS = Task("words", "Spells numbers up to 9999 out in English words.", _words)
UNITS = Task("units", "Converts a quantity between units and shows the equation with the unit's symbol.", _units)
MONEY = Task("money", "Turns a spoken amount of money into a currency code and figures.", _money)
