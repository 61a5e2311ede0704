"""What training makes small. Every loss is a function of score matrices, and this module knows no model.

`scores`, `labels`, `teacher` are float tensors and `mask` is a bool tensor of one shape, (groups, documents): a row is
a query with its documents, and `mask` says where a document is. What stands elsewhere has no part in any loss. All
losses are means, so that the size of a batch does not change them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch

Tensor: TypeAlias = Any

LabelLoss: TypeAlias = Literal["listwise", "bce", "none"]
DistilLoss: TypeAlias = Literal["margin-mse", "kl", "mse", "none"]

LABEL_LOSSES: tuple[LabelLoss, ...] = get_args(LabelLoss)
DISTIL_LOSSES: tuple[DistilLoss, ...] = get_args(DistilLoss)


class Across(NamedTuple):
    """Scores, labels and mask of every query with every document of a batch."""

    scores: Tensor
    labels: Tensor
    mask: Tensor


class Objective(NamedTuple):
    """Which losses, mixed how: `(1 - weight) * label + weight * distil`, as DSE mixes them (AAAI 2020, section 3).

    Attributes:
        label: the loss that compares with the labels.
        distil: the loss that compares with the teacher.
        weight: share of the distillation; of no account where one of the two is "none".
        temperature: both sides of KL are divided by it, and the loss multiplied by its square.
    """

    label: LabelLoss = "listwise"
    distil: DistilLoss = "none"
    weight: float = 0.5
    temperature: float = 1.0

    def loss(
        self, scores: Tensor, labels: Tensor, teacher: Tensor, mask: Tensor, *, across: Across | None = None
    ) -> Tensor:
        """The mixed loss, a scalar; with `across`, labels are compared over documents of other groups too."""
        if self.label == "none":
            return self.of_teacher(scores, teacher, mask)
        of_labels = self.of_labels(*(across or Across(scores, labels, mask)))
        if self.distil == "none":
            return of_labels
        return (1 - self.weight) * of_labels + self.weight * self.of_teacher(scores, teacher, mask)

    def of_labels(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """The part of the labels, a scalar."""
        return (binary_cross_entropy if self.label == "bce" else listwise_softmax)(scores, labels, mask)

    def of_teacher(self, scores: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The part of the teacher, a scalar."""
        if self.distil == "kl":
            return listwise_kl(scores, teacher, mask, temperature=self.temperature)
        return (margin_mse if self.distil == "margin-mse" else pointwise_mse)(scores, teacher, mask)


def listwise_softmax(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between the softmax over each group's scores and its labels brought to the sum 1.

    ListNet's top-one loss (Cao et al., ICML 2007). Every group needs a label above 0.
    """
    wanted = torch.where(mask, labels, 0.0)
    wanted = wanted / wanted.sum(dim=1, keepdim=True)
    return -(wanted * _log_softmax(scores, mask)).sum(dim=1).mean()


def binary_cross_entropy(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each document's own probability, the sigmoid of its score; labels are 0 to 1."""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores[mask].float(), labels[mask].float())


def margin_mse(scores: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of the differences between all two documents of a group (Hofstätter et al., 2020).

    A number added to all of a query's teacher scores changes nothing. The original takes a positive against a
    negative; all pairs need no labels.
    """
    errors = torch.where(mask, scores.float() - teacher, 0.0)
    margins = errors[:, :, None] - errors[:, None, :]
    pairs = (mask[:, :, None] & mask[:, None, :]).triu(diagonal=1)
    return margins[pairs].square().mean()


def listwise_kl(scores: Tensor, teacher: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the scores' softmax from the teacher's, over each group; zero where both agree.

    Both sides are log-probabilities: some published code feeds probabilities, and then a wrong ranking costs less.
    """
    ours = _log_softmax(scores / temperature, mask)
    theirs = _log_softmax(teacher / temperature, mask)
    return (theirs.exp() * (theirs - ours)).sum(dim=1).mean() * temperature**2


def pointwise_mse(scores: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of each score to the teacher's, as DSE has it; a shift of the teacher does count."""
    return (scores[mask].float() - teacher[mask]).square().mean()


def _log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the documents of each group, in float32; 0 where there is none."""
    masked = scores.float().masked_fill(~mask, float("-inf"))
    return torch.log_softmax(masked, dim=1).masked_fill(~mask, 0.0)
