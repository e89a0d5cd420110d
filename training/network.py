"""The network: a small BERT, its training and its evaluation."""

from __future__ import annotations

import copy
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from training.corpus import Review
from training.vocabulary import MASK, MAX_LENGTH, PAD, Encoder

SPECIAL_COUNT = 5
# Pieces in a batch, with the padding; and the share of the old average that a step keeps.
BUDGET = 2048
AVERAGE = 0.998


@dataclass(frozen=True)
class Text:
    """A training text as words, and the probability that it is positive."""

    words: list[str]
    positive: float


def configuration(vocabulary: int, dropout: float) -> BertConfig:
    """Three layers of width 256."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=MAX_LENGTH,
        type_vocab_size=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        pad_token_id=PAD,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )


class SharedDropout(torch.nn.Module):
    """Dropout of whole features, the same for all pieces of a text: far cheaper to draw on a CPU."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.p = rate

    def forward(self, values: Tensor) -> Tensor:
        """Drop features while training."""
        if not self.training:
            return values
        shape = (values.shape[0], *(1,) * (values.dim() - 2), values.shape[-1])
        kept = torch.rand(shape) >= self.p
        return values * (kept.to(values.dtype) / (1 - self.p))


def prepare(model: torch.nn.Module) -> None:
    """Exchange what is slow to train on a CPU: the dropout and the fused attention."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, SharedDropout(child.p))
    assert isinstance(model, PreTrainedModel)
    model.set_attn_implementation("eager")


def batches(rows: Sequence[list[int]], budget: int, rng: random.Random | None) -> Iterator[list[int]]:
    """Indices in batches of similar length, of at most `budget` pieces with the padding."""
    order = list(range(len(rows)))
    if rng is not None:
        rng.shuffle(order)
    span = 8192 if rng is not None else len(order)
    found: list[list[int]] = []
    for start in range(0, len(order), span):
        batch: list[int] = []
        for index in sorted(order[start : start + span], key=lambda item: len(rows[item])):
            if batch and (len(batch) + 1) * len(rows[index]) > budget:
                found.append(batch)
                batch = []
            batch.append(index)
        found.append(batch)
    if rng is not None:
        rng.shuffle(found)
    yield from found


def pad(rows: Sequence[list[int]]) -> Tensor:
    """A rectangle of piece numbers."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def hide(pieces: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """The pieces with some replaced by [MASK]; special pieces stay."""
    chosen = (torch.rand(pieces.shape, generator=generator) < rate) & (pieces >= SPECIAL_COUNT)
    return pieces.masked_fill(chosen, MASK)


def train(
    model: torch.nn.Module,
    epochs: int,
    rate: float,
    draw: Callable[[int], list[list[int]]],
    loss: Callable[[list[int], list[list[int]]], Tensor],
    *,
    seed: int,
    report: Callable[[torch.nn.Module], str],
) -> torch.nn.Module:
    """Train with AdamW (warm-up, then linear decay) in bfloat16; returns a moving average of the weights.

    `draw` gives the rows of an epoch, `loss` the loss of a batch of them.
    """
    rng = random.Random(seed)
    prepare(model)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    averaged = copy.deepcopy(model)
    for epoch in range(epochs):
        begin, total, steps = time.perf_counter(), 0.0, 0
        rows = draw(epoch)
        plan = list(batches(rows, BUDGET, rng))
        model.train()
        for number, batch in enumerate(plan):
            done = (epoch + number / len(plan)) / epochs
            for group in optimizer.param_groups:
                group["lr"] = rate * min(done / 0.06, (1 - done) / 0.94)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = loss(batch, [rows[index] for index in batch])
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            fresh = max(1 - AVERAGE, 10 / (steps + 10)) if epoch == 0 else 1 - AVERAGE
            with torch.no_grad():
                for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
                    mean.lerp_(weight, fresh)
            total += value.item()
            steps += 1
        note = report(averaged)
        seconds = time.perf_counter() - begin
        print(f"  epoch {epoch + 1}/{epochs}: loss {total / steps:.4f} {note} ({seconds:.0f} s)", flush=True)
    return averaged


def fine_tune(
    config: BertConfig,
    draw_texts: Callable[[int], list[Text]],
    encoder: Encoder,
    seed: int,
    *,
    epochs: int,
    rate: float,
    report: Callable[[torch.nn.Module], str],
) -> BertForSequenceClassification:
    """A classifier trained towards the (soft) labels of the texts drawn for every epoch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    rng = random.Random(seed)
    model = BertForSequenceClassification(config)
    goals = torch.zeros(0)

    def draw(epoch: int) -> list[list[int]]:
        nonlocal goals
        texts = draw_texts(epoch)
        goals = torch.tensor([text.positive for text in texts])
        return [encoder.varied(text.words, 0.1, rng) for text in texts]

    def loss(batch: list[int], rows: list[list[int]]) -> Tensor:
        pieces = pad(rows)
        seen = hide(pieces, 0.1, generator)
        scores = model(input_ids=seen, attention_mask=(pieces != PAD).long()).logits.float()
        goal = goals[batch]
        return functional.cross_entropy(scores, torch.stack((1 - goal, goal), dim=1))

    trained = train(model, epochs, rate, draw, loss, seed=seed, report=report)
    assert isinstance(trained, BertForSequenceClassification)
    return trained


@torch.inference_mode()
def predict(model: torch.nn.Module, rows: Sequence[list[int]], *, exact: bool = False) -> Tensor:
    """The log-odds of being positive, in bfloat16 unless `exact`."""
    model.eval()
    odds = torch.zeros(len(rows))
    for batch in batches(rows, 8192, None):
        pieces = pad([rows[index] for index in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not exact):
            scores = model(input_ids=pieces, attention_mask=(pieces != PAD).long()).logits.float()
        odds[batch] = scores[:, 1] - scores[:, 0]
    return odds


def accuracies(odds: Tensor, reviews: Sequence[Review]) -> dict[str, dict[str, float]]:
    """Accuracy and number of texts for each language and each category."""
    right: dict[str, list[bool]] = defaultdict(list)
    for score, review in zip(odds.tolist(), reviews, strict=True):
        hit = (score > 0) == (review.positive > 0.5)
        right[review.language].append(hit)
        if review.category:
            right[f"{review.language}/{review.category}"].append(hit)
    return {
        name: {"accuracy": round(sum(hits) / len(hits), 4), "texts": len(hits)}
        for name, hits in right.items()
    }
