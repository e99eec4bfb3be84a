"""Every task by its name."""

from ..task import Task
from .intents import HOME, SQL, TOPIC
from .moments import DATE
from .quantities import MONEY, UNITS, WORDS
from .records import JSON, NAME

TASKS: dict[str, Task] = {task.name: task for task in (DATE, HOME, JSON, MONEY, NAME, SQL, TOPIC, UNITS, WORDS)}
