"""From a folder to a tokenizer and a model that are known to fit each other, or a refusal that says why."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.location import Location
from streamer.errors import ConfigurationError, StartupError, StreamerError

# Longer texts are cut here when neither the model, its tokenizer nor the configuration says less.
DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Encoder:
    """The tokenizer in Rust, which does not pad, and the special tokens before and after a text.

    `keep_end` says that of a text too long the model wants the end. One thread may use it.
    """

    tokenizer: Tokenizer
    before: Tokens
    after: Tokens
    keep_end: bool
    max_length: int
    pad_id: int
    takes_type_ids: bool


def load_model(location: Location, model_class: str) -> Any:
    """The model in float32 on the CPU, every weight of it from the file.

    `model_class` is the name of one of transformers' Auto classes. Raises StartupError when the folder holds
    another kind of model.
    """
    name = location.name
    with _refusal(f"'{name}' cannot be loaded"), quiet():
        config = transformers.AutoConfig.from_pretrained(
            location.folder, local_files_only=True, trust_remote_code=False
        )
        auto = getattr(transformers, model_class)
        if type(config) not in auto._model_mapping:
            raise StartupError(
                f"'{name}' is a {config.model_type} model, for which transformers has no {model_class}: name "
                "a model that was fine-tuned to classify texts"
            )
        model, report = auto.from_pretrained(
            location.folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise StartupError(
            f"'{name}' lacks weights that its task needs ({shown}); they would be random, and the scores "
            "noise: name a model that was fine-tuned for this task"
        )
    model.eval()
    return model


def load_encoder(location: Location, model: Any, max_length: int | None) -> Encoder:
    """The tokenizer of a model. `max_length` in tokens, the special ones included; None: as many as it may.

    Raises StartupError when the folder has no fast tokenizer or not the model's, ConfigurationError when the
    model cannot take `max_length` tokens.
    """
    name = location.name
    with _refusal(f"the tokenizer of '{name}' cannot be loaded"), quiet():
        wrapper = transformers.AutoTokenizer.from_pretrained(
            location.folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    if not wrapper.is_fast:
        raise StartupError(
            f"'{name}' has no fast tokenizer: it needs a tokenizer.json, and transformers can write one for "
            "most models"
        )
    # The wrapper is used by nobody else, so its Rust tokenizer is ours to set up.
    tokenizer: Tokenizer = wrapper.backend_tokenizer
    embeddings = model.get_input_embeddings().num_embeddings
    if (size := max(tokenizer.get_vocab().values(), default=-1) + 1) > embeddings:
        raise StartupError(
            f"the tokenizer of '{name}' has {size} tokens and the model knows {embeddings}: save the "
            "tokenizer that the model was trained with beside it"
        )
    pad_id = wrapper.pad_token_id if wrapper.pad_token_id is not None else model.config.pad_token_id
    if pad_id is None:
        raise StartupError(
            f"'{name}' has no padding token, so its texts cannot share a batch: set pad_token in its "
            "tokenizer_config.json and pad_token_id in its config.json"
        )
    if any(tokenizer.encode("a").type_ids):
        raise StartupError(
            f"'{name}' numbers the segments of a single text, which is not supported: name another"
        )
    length = _max_length(wrapper, model, max_length)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    before, after = _special_tokens(tokenizer, name)
    takes = "token_type_ids" in wrapper.model_input_names and (
        "token_type_ids" in inspect.signature(model.forward).parameters
    )
    return Encoder(tokenizer, before, after, wrapper.truncation_side == "left", length, pad_id, takes)


def _special_tokens(tokenizer: Tokenizer, name: str) -> tuple[Tokens, Tokens]:
    """What a tokenizer puts before and after every text. Raises StartupError when it does more than that."""
    for text in ("a", "好", "1", "."):
        bare = tokenizer.encode(text, add_special_tokens=False).ids
        full = tokenizer.encode(text).ids
        for start in range(len(full) - len(bare) + 1):
            if bare and full[start : start + len(bare)] == bare:
                before, after = full[:start], full[start + len(bare) :]
                return np.array(before, dtype=np.int32), np.array(after, dtype=np.int32)
    raise StartupError(
        f"the tokenizer of '{name}' makes no tokens, or others in every place: name another model"
    )


def positions(model: Any) -> int | None:
    """How many tokens the model has positions for; None when its positions are relative."""
    table = position_embeddings(model)
    if table is not None:
        # RoBERTa and its kin count from padding_idx + 1.
        offset = 0 if table.padding_idx is None else table.padding_idx + 1
        return table.num_embeddings - offset
    most = getattr(model.config, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def position_embeddings(model: Any) -> torch.nn.Embedding | None:
    """The table of learned positions; None where they are not learned."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module
    return None


def _max_length(wrapper: Any, model: Any, wanted: int | None) -> int:
    most = positions(model)
    if wanted is None:
        # A tokenizer without a limit says 10**30.
        return min(DEFAULT_MAX_LENGTH, int(wrapper.model_max_length), most or DEFAULT_MAX_LENGTH)
    if most is not None and wanted > most:
        raise ConfigurationError(
            f"model.max_length is {wanted}, but the model has positions for {most} tokens"
        )
    special = wrapper.num_special_tokens_to_add()
    if wanted <= special:
        raise ConfigurationError(
            f"model.max_length is {wanted}, and the special tokens alone are {special}: it must be more"
        )
    return wanted


@contextmanager
def _refusal(summary: str) -> Iterator[None]:
    """Whatever the libraries raise about broken files becomes a StartupError that names the model."""
    try:
        yield
    except StreamerError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise StartupError(f"{summary}: {type(error).__name__}: {first}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports of transformers: what matters of them is in our errors."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
