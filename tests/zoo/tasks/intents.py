"""Tasks that find out what somebody wants: a query, a command, a queue."""

import json
from random import Random

from ..task import Task

_TABLES = {
    "orders": ("total", "status", ("open", "paid", "shipped", "cancelled")),
    "users": ("age", "country", ("France", "Japan", "Brazil", "Kenya", "Norway")),
    "products": ("price", "category", ("toys", "books", "shoes", "tools", "games")),
    "employees": ("salary", "department", ("sales", "finance", "legal", "support")),
    "flights": ("delay", "airport", ("Oslo", "Paris", "Tokyo", "Denver", "Cairo")),
}
_ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "office", "garage", "living room", "cellar")
_PRODUCTS = (
    "lamp",
    "kettle",
    "laptop",
    "jacket",
    "camera",
    "phone",
    "blender",
    "chair",
    "printer",
    "bicycle",
    "tent",
    "watch",
    "toaster",
    "mattress",
    "heater",
    "radio",
)
_TOPICS = {
    "PAY": (
        "I was charged twice for the {}.",
        "My card was refused when I tried to buy the {}.",
        "Can you send me an invoice for the {}?",
        "The price on my bill for the {} is wrong.",
    ),
    "SHIP": (
        "Where is my {}? It should have come on {}.",
        "The tracking page of my {} has not changed since {}.",
        "Can you deliver the {} on {} instead?",
        "The courier left the {} at the wrong address on {}.",
    ),
    "BACK": (
        "I want to send the {} back, I don't like it.",
        "How do I return the {} I bought on {}?",
        "The {} is too small, can I exchange it?",
        "I changed my mind about the {} and want my money back.",
    ),
    "FIX": (
        "The {} stopped working on {}.",
        "My new {} does not turn on.",
        "The {} makes a strange noise since {}.",
        "A part of the {} broke on {}.",
    ),
    "INFO": (
        "Does the {} come in other colours?",
        "How heavy is the {}?",
        "Will the {} be in stock on {}?",
        "Is there a manual for the {}?",
    ),
    "THANKS": (
        "I love my new {}!",
        "The {} is great, well done.",
        "Your people were so kind about the {} on {}.",
        "Best {} I have ever had.",
    ),
}
_DAYS = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)


def _sql(source: Random) -> tuple[str, str]:
    table = source.choice(list(_TABLES))
    number, column, values = _TABLES[table]
    value, limit, least = source.choice(values), source.randrange(2, 30), source.randrange(10, 1000)
    question, query = source.choice(
        (
            (f"How many {table} have {column} {value}?", f"SELECT COUNT(*) FROM {table} WHERE {column} = '{value}';"),
            (f"List {table} with a {number} over {least}.", f"SELECT * FROM {table} WHERE {number} > {least};"),
            (f"Show the {limit} {table} with the highest {number}.",
             f"SELECT * FROM {table} ORDER BY {number} DESC LIMIT {limit};"),
            (f"What is the average {number} of {table} for each {column}?",
             f"SELECT {column}, AVG({number}) FROM {table} GROUP BY {column};"),
            (f"What is the average {number} of {table} where the {column} is {value}?",
             f"SELECT AVG({number}) FROM {table} WHERE {column} = '{value}';"),
            (f"Remove all {table} whose {number} is below {least}.", f"DELETE FROM {table} WHERE {number} < {least};"),
        )
    )  # fmt: skip
    return f"Write SQL: {question}", query


def _home(source: Random) -> tuple[str, str]:
    room, degrees, percent = source.choice(_ROOMS), source.randrange(15, 28), source.randrange(5, 100)
    said, device, value = source.choice(
        (
            (f"Turn the lights on in the {room}.", "light", 100),
            (f"It is too bright, switch off the {room} lamp.", "light", 0),
            (f"Dim the {room} to {percent} percent.", "light", percent),
            (f"Make it {degrees} degrees in the {room}.", "heat", degrees),
            (f"Heat the {room} to {degrees}.", "heat", degrees),
            (f"Open the blinds of the {room}.", "blind", 0),
            (f"Close the {room} blinds, please.", "blind", 100),
            (f"Lower the blinds in the {room} by {percent} percent.", "blind", percent),
        )
    )
    return said, json.dumps({"set": f"{room.replace(' ', '_')}.{device}", "to": value})


def _topic(source: Random) -> tuple[str, str]:
    topic = source.choice(list(_TOPICS))
    message = source.choice(_TOPICS[topic]).format(source.choice(_PRODUCTS), source.choice(_DAYS))
    return f"Which queue? {message}", topic


SQL = Task("sql", "Turns a question about a table into one SQL statement.", _sql)
HOME = Task("home", "Turns a spoken wish into a home automation command as JSON.", _home)
TOPIC = Task("topic", "Sorts a customer's message into one of six queues.", _topic)
