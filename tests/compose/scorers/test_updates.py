import torch

from loraloom.compose.scorers.updates import OwnUpdate, SharedUpdate, Update


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


OUT, X = drawn(6, 5, 7), drawn(6, 5, 4)
SHARED = SharedUpdate(drawn(3, 4), drawn(3, 7), drawn(2, 3))
OWN = OwnUpdate(drawn(2, 3, 4), drawn(2, 3, 7))


def dense(update: SharedUpdate | OwnUpdate, candidate: int) -> torch.Tensor:
    """dW^T of one candidate."""
    if isinstance(update, SharedUpdate):
        return update.a.T @ torch.diag(update.scale[candidate]) @ update.b
    return update.a[candidate].T @ update.b[candidate]


def check(update: Update, weights: list[torch.Tensor]) -> None:
    """Each candidate has as many rows of the input, one candidate after the other."""
    lines = len(X) // len(weights)
    added = update.added(OUT.clone(), X) - OUT
    for candidate, weight in enumerate(weights):
        rows = slice(candidate * lines, (candidate + 1) * lines)
        torch.testing.assert_close(added[rows], X[rows] @ weight)


def test_each_candidates_rows_get_its_update() -> None:
    for update in (SHARED, OWN):
        check(update, [dense(update, 0), dense(update, 1)])


def test_narrowed_to_some_candidates_the_others_are_gone() -> None:
    for update in (SHARED, OWN):
        check(update.narrowed(torch.tensor([1])), [dense(update, 1)])
        check(update.narrowed(torch.tensor([1, 0])), [dense(update, 1), dense(update, 0)])
