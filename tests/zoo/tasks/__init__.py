"""Every task by its name."""

from ..task import Task
from .dates import DATE
from .intents import HOME, SQL, TOPIC
from .names import NAME
from .quantities import MONEY, UNITS, WORDS

TASKS: dict[str, Task] = {task.name: task for task in (DATE, HOME, MONEY, NAME, SQL, TOPIC, UNITS, WORDS)}
