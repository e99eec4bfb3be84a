"""What the large model is asked to write about: questions of many kinds, and the demo tasks' training prompts."""

from collections.abc import Sequence
from random import Random

from ..recipe import RECIPES
from ..task import Example
from ..tasks import TASKS

SHOTS = 4

_KINDS = (
    "Explain {} in simple words.",
    "Write a short story about {}.",
    "What should I know about {}?",
    "Give me three facts about {}.",
    "Write a poem of four lines about {}.",
    "Why do people care about {}?",
    "Describe {} to a child.",
    "List five words that belong to {}.",
    "How did {} begin?",
    "What is difficult about {}?",
    "Write an email to a friend about {}.",
    "Compare {} with {}.",
    "What have {} and {} in common?",
    "Tell me something surprising about {}.",
    "Write a dialogue between two people who talk about {}.",
    "Summarise what is known about {} in one sentence.",
    "How would you teach {}?",
    "What are the dangers of {}?",
    "Write the first paragraph of an essay on {}.",
    "Ask me three questions about {}.",
    "Write a headline and a short newspaper article about {}.",
    "How much does one spend on {} in a year?",
    "Make a plan for a week that has to do with {}.",
    "Which year was important for {}, and why?",
    "Write a Python function that has to do with {}.",
    "Who is famous for {}?",
    "Write a table with prices and dates about {}.",
    "Is {} older than {}?",
    "Write instructions for {} in numbered steps.",
    "What numbers come to mind when you think of {}?",
)
_SUBJECTS = (
    "rain, snow, the moon, volcanoes, rivers, deserts, coral reefs, earthquakes, the seasons, clouds, bread, tea, "
    "coffee, cheese, soup, chocolate, rice, apples, honey, olive oil, trains, bicycles, ships, aeroplanes, bridges, "
    "roads, maps, clocks, telescopes, microscopes, computers, telephones, radios, cameras, batteries, robots, "
    "the internet, databases, passwords, spreadsheets, cats, dogs, horses, whales, bees, spiders, owls, wolves, "
    "elephants, dinosaurs, trees, roses, mushrooms, grass, seeds, gardens, farms, forests, mountains, islands, "
    "football, chess, swimming, running, tennis, dancing, singing, the piano, the guitar, drums, painting, sculpture, "
    "poetry, novels, theatre, films, newspapers, libraries, schools, universities, exams, hospitals, doctors, "
    "medicine, vaccines, sleep, dreams, memory, fear, friendship, love, anger, money, banks, taxes, markets, prices, "
    "shops, contracts, courts, elections, parliaments, kings, wars, peace treaties, ancient Rome, ancient Egypt, "
    "the Middle Ages, the Renaissance, the Industrial Revolution, France, Japan, Brazil, Kenya, India, Canada, China, "
    "Mexico, Norway, Australia, numbers, fractions, geometry, algebra, statistics, probability, prime numbers, "
    "gravity, light, sound, heat, electricity, magnets, atoms, water, iron, gold, salt, glass, paper, plastic, cotton, "
    "clothes, shoes, houses, doors, windows, furniture, kitchens, cities, villages, holidays, birthdays, weddings, "
    "letters, stamps, jokes, riddles, proverbs, languages, alphabets, grammar, translation, names, calendars, weeks, "
    "the future, space travel, planets, stars, black holes, the sun, oceans, fishing, cooking, baking, cleaning, "
    "travelling, packing a suitcase, moving house, saving energy, recycling, writing a letter, learning to drive, "
    "job interviews, meetings, teams, factories, tools, inventions, patents, customers, deliveries, invoices, repairs"
)

Conversation = list[tuple[str, str]]
"""Messages as (role, content); the last one is the user's."""


def open_prompts(count: int, seed: int) -> list[Conversation]:
    """So many different questions on everyday subjects."""
    source, found, subjects = Random(f"prompts {seed}"), dict[str, None](), _SUBJECTS.split(", ")
    while len(found) < count:
        found[source.choice(_KINDS).format(*source.sample(subjects, 2))] = None
    return [[("user", prompt)] for prompt in found]


def task_prompts(each: int) -> list[Conversation]:
    """The first training prompts of every demo task: half of them alone, half after solved ones as earlier turns."""
    found = []
    for name, task in TASKS.items():
        training, _ = task.split(RECIPES[name].examples)
        alone, after = training[: each // 2], training[each // 2 : each]
        found += [[("user", example.prompt)] for example in alone]
        found += [_after(training[-SHOTS * (number + 1) :][:SHOTS], example) for number, example in enumerate(after)]
    return found


def _after(solved: Sequence[Example], example: Example) -> Conversation:
    turns = [turn for shot in solved for turn in (("user", shot.prompt), ("assistant", shot.expected))]
    return [*turns, ("user", example.prompt)]
