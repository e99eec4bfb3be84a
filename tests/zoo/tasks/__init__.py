"""Every task by its name."""

from ..task import Task
from .intents import HOME, SQL, TOPIC
from .moments import CRON, DATE, TIME
from .quantities import MONEY, UNITS, WORDS
from .records import JSON, LOG, NAME

TASKS: dict[str, Task] = {
    task.name: task for task in (DATE, JSON, WORDS, SQL, TIME, CRON, UNITS, MONEY, LOG, NAME, HOME, TOPIC)
}
