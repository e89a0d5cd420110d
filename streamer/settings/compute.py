"""How records become batches, and what scores them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from streamer.settings.section import Bytes, Count, Microseconds, Milliseconds, Name, Section


class Window(Section, frozen=True):
    """When the records that were read go on together; the first bound that is reached closes it."""

    max_records: Annotated[Count, Meta(description="records in a window")] = 512
    max_bytes: Annotated[Bytes, Meta(description="bytes of records in a window")] = 4 << 20
    max_age_ms: Annotated[Milliseconds, Meta(description="age of its first record, in milliseconds")] = 50
    linger_ms: Annotated[
        Milliseconds,
        Meta(description="age at which it closes when the device has nothing to do, in milliseconds"),
    ] = 3
    max_in_flight_bytes: Annotated[
        Bytes,
        Meta(description="bytes of records read and not yet committed; beyond it the partitions are paused"),
    ] = 64 << 20


class Batching(Section, frozen=True):
    """What the device sees at once."""

    sizing: Annotated[
        Literal["auto", "fixed"],
        Meta(description="auto fits a batch to the device's measured speed; fixed uses max_tokens"),
    ] = "auto"
    max_texts: Annotated[Count, Meta(description="texts in a batch")] = 256
    max_tokens: Annotated[Count, Meta(description="tokens in a batch, padding included")] = 16_384
    max_latency_ms: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600_000,
            description="the longest that a batch may take, in milliseconds; for sizing: auto",
        ),
    ] = 1000


class Model(Section, frozen=True):
    """What scores the texts."""

    backend: Annotated[
        Literal["torch", "fake"], Meta(description="torch runs a model; fake sleeps, for capacity tests")
    ] = "torch"
    name: Annotated[
        Name, Meta(description="a shipped model (sentiment), a folder, or a Hugging Face hub name")
    ] = "sentiment"
    revision: Annotated[
        Name | None, Meta(description="the hub revision to pin; null takes the newest and logs which it was")
    ] = None
    task: Annotated[Literal["classification"], Meta(description="what is made of the model's output")] = (
        "classification"
    )
    device: Annotated[Name, Meta(description="auto, cpu, cuda, cuda:1")] = "auto"
    runtime: Annotated[
        Literal["torch", "openvino"],
        Meta(description="what runs the layers: PyTorch, or Intel's OpenVINO on the CPU"),
    ] = "torch"
    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32", "amp"],
        Meta(description="of the weights; auto takes bf16 where it is fast; amp is PyTorch's autocast"),
    ] = "auto"
    quantize: Annotated[
        Literal["none", "int8", "fp8"],
        Meta(description="of the linear layers; int8 is for the CPU, fp8 for CUDA"),
    ] = "none"
    max_drift: Annotated[
        float,
        Meta(
            ge=0, le=1, description="the share of labels, and of scores on average, that rounding may change"
        ),
    ] = 0.03
    sample: Annotated[
        Name | None,
        Meta(description="a file of texts, one a line, to measure that drift on; null takes those shipped"),
    ] = None
    max_length: Annotated[
        Count | None, Meta(description="tokens that a text may have; null takes the model's own limit")
    ] = None
    long_texts: Annotated[
        Literal["truncate", "dead_letter", "windows"],
        Meta(
            description="what becomes of a longer text: it is cut, and the result says so; it is a dead "
            "letter; or it is scored in windows; see texts.md"
        ),
    ] = "truncate"
    window_overlap: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="tokens that a window of a long text shares with the one before it",
        ),
    ] = 32
    max_windows: Annotated[
        Count, Meta(description="windows of a text; what it holds beyond them is cut, and the result says so")
    ] = 16
    window_pooling: Annotated[
        Literal["mean", "max"],
        Meta(
            description="each score of a text in windows is the mean of theirs, by their tokens, or the "
            "highest"
        ),
    ] = "mean"


class Fake(Section, frozen=True):
    """The stand-in of model.backend: fake. It sleeps as long as a model would compute."""

    base_ms: Annotated[Milliseconds, Meta(description="milliseconds a batch")] = 1.0
    per_text_us: Annotated[Microseconds, Meta(description="microseconds a text")] = 20.0
    per_token_us: Annotated[Microseconds, Meta(description="microseconds a token")] = 0.0
