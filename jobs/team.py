"""Processes that train together: each has a share of the users, and all have the same weights after every step.

Gradients are averaged over all examples of the step, wherever they are. Of a large embedding table only the rows that
the step touched travel, unless they are so many that the whole table is less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import distributed

TABLE_ROWS = 1024
"""Parameters with fewer rows always travel whole."""


class Team:
    """The process `rank` of `size`. One alone needs nobody; several need torch.distributed to be initialised.

    All processes of a team must call the same methods in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, which is on a CPU, made the sum over the team in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of the team's numbers, place by place."""
        found = torch.tensor(numbers, dtype=torch.int64)
        if self.size > 1 and numbers:
            distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return found.tolist()

    def tell(self, number: float | None) -> float | None:
        """What the first process says; the numbers of the others do not count."""
        said = torch.tensor(float("nan") if number is None else number, dtype=torch.float64)
        self.spread([said])
        return None if said.isnan() else said.item()

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the first process's numbers into everybody's tensors."""
        for tensor in tensors if self.size > 1 else ():
            sent = tensor.detach().cpu().contiguous()
            distributed.broadcast(sent, src=0)
            tensor.detach().copy_(sent)

    def average(
        self, parameters: Sequence[torch.nn.Parameter], loss: torch.Tensor | None, weight: float, examples: int
    ) -> tuple[float, int]:
        """Make the gradients those of the whole step: (the loss of the step, its examples).

        Args:
            loss: the mean over this process's examples, and its gradients are in `parameters`; None without examples.
            weight: what this process's mean counts among the others.
        """
        value = 0.0 if loss is None else loss.item()
        if self.size == 1:
            return value, examples
        gradients = [_gradient(parameter).mul_(weight) for parameter in parameters]
        facts = torch.tensor([weight, weight * value, examples], dtype=torch.float64)
        total, losses, count = self.total(facts).tolist()
        tables = [grad for grad in gradients if grad.dim() == 2 and len(grad) >= TABLE_ROWS]
        touched = [grad.any(dim=1).nonzero()[:, 0] for grad in tables]
        most = self.largest([len(rows) for rows in touched])
        sparse = {
            id(grad): (rows, n)
            for grad, rows, n in zip(tables, touched, most, strict=True)
            if n * self.size * (grad.shape[1] + 2) < grad.numel()
        }
        whole = [grad for grad in gradients if id(grad) not in sparse]
        flat = self.total(torch.cat([grad.cpu().flatten() for grad in whole]))
        for grad, part in zip(whole, flat.split([grad.numel() for grad in whole]), strict=True):
            grad.copy_(part.view_as(grad))
        for grad in gradients:
            if id(grad) in sparse:
                self._exchange_rows(grad, *sparse[id(grad)])
            grad.div_(total or 1.0)
        return losses / (total or 1.0), int(count)

    def _exchange_rows(self, grad: torch.Tensor, rows: torch.Tensor, most: int) -> None:
        """Sum the touched rows over the team; each process sends `most`, row -1 standing for none."""
        places = torch.full((most,), -1)
        values = torch.zeros(most, grad.shape[1], dtype=grad.dtype)
        places[: len(rows)], values[: len(rows)] = rows.cpu(), grad[rows].cpu()
        all_places = [torch.empty_like(places) for _ in range(self.size)]
        all_values = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(all_places, places)
        distributed.all_gather(all_values, values)
        grad.zero_()
        for their_rows, their_values in zip(all_places, all_values, strict=True):  # the same order everywhere
            real = their_rows >= 0
            grad.index_add_(0, their_rows[real].to(grad.device), their_values[real].to(grad.device))


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The parameter's gradient; zeros where it had none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


ALONE = Team()
