"""The numbers that the queue goes by."""

from dataclasses import dataclass

from loraloom.server.errors import InvalidSettings


@dataclass(frozen=True)
class Rules:
    """What there is to share, and how long a request may wait for its share.

    Attributes:
        seats: sequences that the engine runs at a time (`max_num_seqs`).
        adapters: distinct adapters that it runs at a time (`max_loras`); the base model is none.
        reserve: the last seats are only for keys that hold fewer than this; with it the last place for an adapter is
            only for keys that have none. 0 where all requests are of one key: nothing would ever use it.
        patience: seconds that a request may wait.
        hold: seconds that a request may be overtaken because its adapter does not run, and that an adapter may stay
            once it runs; then room is made.
        most_waiting: requests that may wait, jobs and others apart.
        most_of_a_key: those of them that one key may have.
    """

    seats: int
    adapters: int
    reserve: int = 0
    patience: float = 60.0
    hold: float = 2.0
    most_waiting: int = 1024
    most_of_a_key: int = 256

    def __post_init__(self) -> None:
        if self.seats < 1 or self.adapters < 1:
            raise InvalidSettings(f"the engine needs a seat and an adapter, not {self.seats} and {self.adapters}")
        if not 0 <= self.reserve < self.seats:
            raise InvalidSettings(
                f"a reserve of {self.reserve} of {self.seats} seats leaves none: choose 0 to {self.seats - 1}"
            )

    @property
    def most_seats(self) -> int:
        """What one key can have at most, and so what its largest request counts as."""
        return self.seats - self.reserve


def usual_reserve(seats: int) -> int:
    """The reserve where keys are in force: an eighth of the seats."""
    return max(1, seats // 8) if seats > 1 else 0
