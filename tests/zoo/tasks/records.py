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
_CITIES = {
    "Lisbon": "PT",
    "Oslo": "NO",
    "Madrid": "ES",
    "Vienna": "AT",
    "Dublin": "IE",
    "Prague": "CZ",
    "Warsaw": "PL",
    "Athens": "GR",
    "Berlin": "DE",
    "Toronto": "CA",
    "Chicago": "US",
    "Boston": "US",
    "Denver": "US",
    "Sydney": "AU",
    "Tokyo": "JP",
    "Seoul": "KR",
    "Cairo": "EG",
    "Nairobi": "KE",
    "Lima": "PE",
    "Bogota": "CO",
    "Havana": "CU",
    "Paris": "FR",
    "Rome": "IT",
    "Milan": "IT",
    "Zurich": "CH",
    "Geneva": "CH",
    "Mumbai": "IN",
    "Delhi": "IN",
}
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


def _json(source: Random) -> tuple[str, str]:
    first, last, city, job = (source.choice(values) for values in (_FIRST, _LAST, tuple(_CITIES), _JOBS))
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
    fields = {"last": last, "first": first, "age": age, "job": job, "city": city, "country": _CITIES[city]}
    return f"Extract the person as JSON: {sentence}", json.dumps(fields)


def _name(source: Random) -> tuple[str, str]:
    given = source.sample(_FIRST, source.choice((1, 2, 2, 3)))
    last, year = source.choice(_LAST), source.randrange(1950, 2025)
    title = source.choice(("", "", "Dr. ", "Prof. "))
    initials = " ".join(f"{name[0]}." for name in given)
    return f"Cite as a reference: {title}{' '.join(given)} {last}, {year}", f"{last}, {initials} ({year})"


JSON = Task("json", "Extracts a person from a sentence as JSON, and adds the code of the city's country.", _json)
NAME = Task("name", "Cites an author as last name, initials and year.", _name)
