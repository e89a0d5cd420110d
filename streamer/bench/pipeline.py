"""The text-classification pipeline of transformers, as it comes: float32, padded, texts in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamer.bench.turns import Turn


class Pipeline:
    """One text a call, or `batch_size` of them; longer texts are cut as streamer cuts them."""

    def __init__(self, folder: Path, device: str, max_length: int) -> None:
        import torch
        import transformers

        logging: Any = transformers.logging
        logging.set_verbosity_error()
        model: Any = transformers.AutoModelForSequenceClassification
        tokenizer: Any = transformers.AutoTokenizer
        make: Any = transformers.pipeline
        self._pipe = make(
            "text-classification",
            model=model.from_pretrained(folder, dtype=torch.float32),
            tokenizer=tokenizer.from_pretrained(folder),
            device=device,
        )
        self._cut = {"truncation": True, "max_length": max_length}

    def one_by_one(self, texts: Sequence[str]) -> Turn:
        return Turn([self._pipe(text, **self._cut)[0]["label"] for text in texts])

    def fixed(self, texts: Sequence[str], batch_size: int = 32) -> Turn:
        found = self._pipe(list(texts), batch_size=batch_size, **self._cut)
        return Turn([each["label"] for each in found])
