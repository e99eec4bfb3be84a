"""The formula of proxy-tuning, on tensors."""

import torch


def combine(large: torch.Tensor, expert: torch.Tensor, antiexpert: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """`large + alpha * (expert - antiexpert)`, in float32.

    Columns that only one side has are padding of its vocabulary: the small model says nothing of the large one's, and
    nobody asks for its own.

    Args:
        large: logits of the large model, (rows, its vocabulary).
        expert: of the tuned small model, (rows, the small vocabulary).
        antiexpert: of the untuned small model, of the same shape.
        alpha: the strength of each row, (rows, 1).

    Returns:
        Logits, (rows, the large vocabulary).

    Source: Liu et al. 2024, "Tuning Language Models by Proxy", arXiv:2401.08565, equation 1.
    """
    logits = large.float()
    if logits is large:
        logits = large.clone()
    shared = min(logits.shape[-1], expert.shape[-1])
    offset = expert[:, :shared].float() - antiexpert[:, :shared].float()
    logits[:, :shared] += alpha.float() * offset
    return logits
