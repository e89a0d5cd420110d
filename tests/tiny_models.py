"""Models of a few kilobytes with random weights, made where a test needs them, and jobs to feed them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from streamer.backends.torch import TorchBackend
from streamer.ledger import Lane
from streamer.records import Classification, Encoding, Job, Record

LABELS = {0: "negative", 1: "neutral", 2: "positive"}

TEXTS = [
    "很好",
    "bad",
    "这家酒店的房间很干净，服务也很好，下次还会再来。",
    "the film was too long and not good at all , i would not see it again",
    "物流太慢了 😡 but the phone is good 👍👍",
    "😀",
    "a",
    "书的内容不错，包装很差！" * 3,
    "[PAD] is only a word here",
]

# Random weights of the usual size answer 0.5 to everything, and no difference would show.
WIDE = 0.4

_SMALL: dict[str, Any] = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": WIDE,
}
_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def save_bert(folder: Path, positions: int = 64, **settings: Any) -> Path:
    """A BERT with a WordPiece vocabulary of the characters and words of TEXTS, most but not all."""
    tokenizer = _wordpiece()
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=positions, **{**_SMALL, **_SIZES, **settings}
    )
    return _save(folder, tokenizer, BertForSequenceClassification, config)


def save_distilbert(folder: Path) -> Path:
    """A DistilBERT, which takes no token types."""
    tokenizer = _wordpiece()
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=64,
        initializer_range=WIDE,
        **_SMALL,
    )
    return _save(folder, tokenizer, DistilBertForSequenceClassification, config)


def save_roberta(folder: Path, positions: int = 66) -> Path:
    """A RoBERTa with byte-level BPE: its padding is token 1, so it has two positions less than it says."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **_SMALL,
        **_SIZES,
    )
    return _save(folder, tokenizer, RobertaForSequenceClassification, config)


def save_family(folder: Path, family: str, **settings: Any) -> Path:
    """A classifier of any family, such as "Albert", with the vocabulary of `save_bert` and 160 positions.

    The families that are like RoBERTa count their positions from `pad_token_id + 1`.
    """
    wordpiece = _wordpiece()
    kept = ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=wordpiece.backend_tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=kept,
    )
    config = getattr(transformers, f"{family}Config")(
        **{
            "vocab_size": len(wordpiece),
            "max_position_embeddings": 162,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            **_SMALL,
            **_SIZES,
            **settings,
        }
    )
    return _save(folder, tokenizer, getattr(transformers, f"{family}ForSequenceClassification"), config)


def encode(backend: TorchBackend, texts: list[str]) -> list[Encoding]:
    """The texts as a window of them is encoded; an error among them fails the test."""
    found = backend.encode(texts)
    assert all(isinstance(each, Encoding) for each in found), found
    return cast(list[Encoding], found)


def jobs_of(backend: TorchBackend, texts: Iterable[str]) -> list[Job]:
    """Jobs as the engine hands them to a worker: encoded."""
    jobs = []
    for offset, text in enumerate(texts):
        (found,) = encode(backend, [text])
        record = Record("texts.in", 0, offset, 0, None, text.encode("utf-8", "replace"), [])
        job = Job(record, cast(Lane, None), len(text), text=text)
        job.tokens, job.encoded, job.truncated = found
        jobs.append(job)
    return jobs


def classify(backend: TorchBackend, texts: Iterable[str]) -> list[Classification]:
    """The texts in one batch; an error in it fails the test."""
    values = backend.infer(jobs_of(backend, texts))
    assert all(isinstance(value, Classification) for value in values), values
    return cast(list[Classification], values)


def edit(path: Path, **values: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _wordpiece() -> BertTokenizer:
    characters = sorted({char for text in TEXTS for char in text if not char.isspace()} - set("😡a内"))
    pieces = [*_SPECIALS, *characters, "a", *(f"##{char}" for char in characters if char.isascii()), "good"]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))})


def _save(folder: Path, tokenizer: Any, model: Any, config: Any) -> Path:
    torch.manual_seed(7)
    model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
