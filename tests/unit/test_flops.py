"""Operations of a text, against the figures that are known."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from streamer.backends.torch.flops import flops_of_text, peak_flops, speed, uuid_of


def test_bert_base_takes_what_is_known_of_it() -> None:
    """12 layers of 12 * 768 * 768 weights, twice; 4 * 768 for each pair of tokens; pooler and head."""
    found = flops_of_text(BertForSequenceClassification, BertConfig(), 512)
    assert found == pytest.approx((2 * 768 * (768 + 2), 12 * 24 * 768 * 768, 12 * 4 * 768))


def test_distilbert_has_half_the_layers() -> None:
    found = flops_of_text(DistilBertForSequenceClassification, DistilBertConfig(), 512)
    assert found is not None and found[1:] == pytest.approx((6 * 24 * 768 * 768, 6 * 4 * 768))


def test_what_cannot_be_counted_is_not_known() -> None:
    assert flops_of_text(BertForSequenceClassification, BertConfig(), 100) is None, (
        "shorter than what is tried"
    )
    config = ModernBertConfig(hidden_size=0)
    assert flops_of_text(ModernBertForSequenceClassification, config, 512) is None


def test_a_processor_promises_nothing_and_has_no_driver() -> None:
    cpu = torch.device("cpu")
    assert (peak_flops(cpu, "bf16"), uuid_of(cpu)) == (None, None)
    found = speed(BertForSequenceClassification, BertConfig(), 512, cpu, "fp32")
    assert found.keys() == {"flops_of_text"}
