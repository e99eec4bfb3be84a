"""Tasks about people's names."""

from random import Random

from ..task import Task

_FIRST = (
    "Anna",
    "Boris",
    "Carla",
    "David",
    "Elena",
    "Felix",
    "Grace",
    "Henry",
    "Ines",
    "James",
    "Karin",
    "Lucas",
    "Maria",
    "Nadia",
    "Oscar",
    "Paula",
    "Quentin",
    "Rosa",
    "Samuel",
    "Teresa",
    "Umar",
    "Vera",
    "Walter",
    "Yusuf",
    "Zoe",
    "Alice",
    "Bruno",
    "Clara",
    "Daniel",
    "Emma",
    "Frank",
    "Gloria",
    "Hugo",
    "Irene",
    "Julia",
    "Kevin",
)
_LAST = (
    "Almeida",
    "Becker",
    "Carter",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ivanov",
    "Jensen",
    "Kowalski",
    "Lopez",
    "Martin",
    "Novak",
    "Olsen",
    "Petrov",
    "Quinn",
    "Rossi",
    "Schmidt",
    "Tanaka",
    "Ueda",
    "Varga",
    "Weber",
    "Young",
    "Zimmer",
    "Allen",
    "Brown",
    "Clarke",
    "Davies",
    "Evans",
    "Foster",
    "Green",
)


def _name(source: Random) -> tuple[str, str]:
    given = source.sample(_FIRST, source.choice((1, 2, 2, 3)))
    last, year = source.choice(_LAST), source.randrange(1950, 2025)
    title = source.choice(("", "", "Dr. ", "Prof. "))
    initials = " ".join(f"{name[0]}." for name in given)
    return f"Cite as a reference: {title}{' '.join(given)} {last}, {year}", f"{last}, {initials} ({year})"


NAME = Task("name", "Cites an author as last name, initials and year.", _name)
