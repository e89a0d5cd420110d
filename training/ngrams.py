"""The linear teacher: logistic regression on n-grams scaled by their log-count ratio (NB-SVM)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Pattern = Sequence[str]


def grams(words: Pattern, chinese: bool) -> set[str]:
    """Character 1- to 4-grams of Chinese words; words, word pairs and triples and stems of English ones."""
    found: set[str] = set()
    if chinese:
        text = " ".join(words)
        for size in (1, 2, 3, 4):
            found.update(text[start : start + size] for start in range(len(text) - size + 1))
        return found
    for size in (1, 2, 3):
        found.update("\t".join(words[start : start + size]) for start in range(len(words) - size + 1))
    for word in words:
        if len(word) > 4:
            marked = f"<{word}>"
            found.update(marked[s : s + size] for size in (4, 5, 6) for s in range(len(marked) - size + 1))
    return found


class NgramTeacher:
    """Fitted by full-batch L-BFGS, so that it needs neither a seed nor a rate."""

    def __init__(self, chinese: bool, decay: float, least: int = 2) -> None:
        self._chinese = chinese
        self._decay = decay
        self._least = least
        self._index: dict[str, int] = {}
        self._ratio = torch.zeros(0)
        self._weight = torch.zeros(0)
        self._bias = torch.zeros(1)

    def _matrix(self, bags: Iterable[set[str]]) -> Tensor:
        columns: list[int] = []
        starts = [0]
        values: list[float] = []
        for bag in bags:
            row = sorted(self._index[gram] for gram in bag if gram in self._index)
            columns.extend(row)
            values.extend([1 / math.sqrt(max(1, len(row)))] * len(row))
            starts.append(len(columns))
        return torch.sparse_csr_tensor(
            torch.tensor(starts),
            torch.tensor(columns),
            torch.tensor(values),
            (len(starts) - 1, len(self._index)),
        )

    def fit(self, texts: Sequence[Pattern], positive: Tensor) -> NgramTeacher:
        """Learn from texts (as words) and their probabilities of being positive."""
        bags = [grams(words, self._chinese) for words in texts]
        counts: Counter[str] = Counter()
        for bag in bags:
            counts.update(bag)
        kept = sorted(gram for gram, count in counts.items() if count >= self._least)
        self._index = {gram: number for number, gram in enumerate(kept)}
        matrix = self._matrix(bags)
        turned = matrix.to_sparse_coo().t().to_sparse_csr()  # type: ignore[no-untyped-call]
        good = turned @ positive + 0.1
        bad = turned @ (1 - positive) + 0.1
        self._ratio = ((good / good.sum()) / (bad / bad.sum())).log().abs() + 0.3
        weight = torch.zeros(len(kept))
        bias = torch.zeros(1)
        solver = torch.optim.LBFGS([weight, bias], max_iter=60, history_size=8, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            odds = matrix @ (weight * self._ratio) + bias
            error = (torch.sigmoid(odds) - positive) / len(texts)
            weight.grad = (turned @ error) * self._ratio + self._decay / len(texts) * weight
            bias.grad = error.sum().reshape(1)
            value = functional.binary_cross_entropy_with_logits(odds, positive)
            return value + self._decay / len(texts) / 2 * weight.square().sum()

        solver.step(closure)  # type: ignore[no-untyped-call]
        self._weight, self._bias = weight, bias
        return self

    def odds(self, texts: Sequence[Pattern]) -> Tensor:
        """The log-odds of being positive."""
        matrix = self._matrix(grams(words, self._chinese) for words in texts)
        return matrix @ (self._weight * self._ratio) + self._bias
