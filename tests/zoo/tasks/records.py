"""Tasks that turn a line of text into fields."""

import json
from random import Random

from ..task import Task
from .quantities import in_words

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
_CITIES = (
    "Lisbon",
    "Oslo",
    "Madrid",
    "Vienna",
    "Dublin",
    "Prague",
    "Warsaw",
    "Athens",
    "Berlin",
    "Toronto",
    "Chicago",
    "Boston",
    "Denver",
    "Sydney",
    "Tokyo",
    "Seoul",
    "Cairo",
    "Nairobi",
    "Lima",
    "Bogota",
    "Havana",
    "Paris",
    "Rome",
    "Milan",
    "Zurich",
    "Geneva",
    "Mumbai",
    "Delhi",
)
_JOBS = (
    "nurse",
    "teacher",
    "pilot",
    "baker",
    "lawyer",
    "farmer",
    "plumber",
    "dentist",
    "chemist",
    "painter",
    "driver",
    "judge",
)
_PATHS = (
    "users",
    "orders",
    "items",
    "carts",
    "login",
    "search",
    "reports",
    "images",
    "health",
    "invoices",
)
_LEVELS = {
    "info": (200, 201, 204),
    "notice": (301, 302, 304),
    "warning": (400, 401, 403, 404, 429),
    "error": (500, 502, 503, 504),
}


def _json(source: Random) -> tuple[str, str]:
    first, last, city, job = (source.choice(values) for values in (_FIRST, _LAST, _CITIES, _JOBS))
    age = source.randrange(21, 80)
    said = source.choice((str(age), in_words(age)))
    sentence = source.choice(
        (
            f"{first} {last} is {said} years old, works as a {job} and lives in {city}.",
            f"My name is {first} {last}, I am a {job} from {city} and I am {said}.",
            f"In {city} we met the {job} {first} {last}, who is {said}.",
            f"At {said}, {first} {last} still works as a {job} in {city}.",
        )
    )
    fields = {"last": last, "first": first, "age": age, "job": job, "city": city}
    return f"Extract the person as JSON: {sentence}", json.dumps(fields)


def _name(source: Random) -> tuple[str, str]:
    given = source.sample(_FIRST, source.choice((1, 2, 2, 3)))
    last, year = source.choice(_LAST), source.randrange(1950, 2025)
    title = source.choice(("", "", "Dr. ", "Prof. "))
    initials = " ".join(f"{name[0]}." for name in given)
    return f"Cite as a reference: {title}{' '.join(given)} {last}, {year}", f"{last}, {initials} ({year})"


def _log(source: Random) -> tuple[str, str]:
    level = source.choice(list(_LEVELS))
    status, method = source.choice(_LEVELS[level]), source.choice(("GET", "POST", "PUT", "DELETE"))
    path, took = f"/{source.choice(_PATHS)}/{source.randrange(1, 100)}", source.randrange(2, 1000)
    clock = f"{source.randrange(24):02}:{source.randrange(60):02}:{source.randrange(60):02}"
    line = f'{clock} "{method} {path} HTTP/1.1" {status} {took}ms'
    return f"Parse this log line: {line}", f"level={level} ms={took} status={status} {method.lower()} {path}"


JSON = Task("json", "Extracts a person's name, age, job and city from a sentence as JSON.", _json)
NAME = Task("name", "Cites an author as last name, initials and year.", _name)
LOG = Task("log", "Parses a web server's log line into fields, with a level that follows from the status.", _log)
