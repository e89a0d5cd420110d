"""Runtimes for the layers on a CPU, on real texts, in one run: PyTorch, OpenVINO and ONNX Runtime.

    uv pip install onnx onnxruntime
    python -m bench.runtimes --texts reviews_zh.csv.gz --vocabulary 21128

The model has random weights in the shape of BERT-base (`bench.inference`). PyTorch and OpenVINO are what
`model.runtime` chooses between. ONNX Runtime gets the tokens from our tokenizer, one text a call, and in
batches of like length, with padding; its int8 is dynamic. All have two threads, and take turns after one
untimed turn each. Figures are medians, ratios are to the pipeline one by one.
Every turn has texts of its own, as a stream has: a runtime that compiles for each shape of a batch meets new
ones.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from streamer.backends.torch import TorchBackend  # before torch: it sets what OpenMP reads

import torch  # isort: skip
import numpy as np
import transformers
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from bench.inference import MAX_TEXTS, Answer, Case, Line, jobs_of, pipelines, report, save_base
from bench.topics import read_texts
from streamer.planner import plan
from streamer.records import Job
from streamer.sizing import TokenBudget

THREADS = 2
CASES = ("fp32", "bf16", "bf16+int8", "openvino:fp32", "openvino:bf16", "openvino:bf16+int8")
BUDGETS = {"by length": 512, "one by one": 1}  # tokens, padding included
ONNX = ("fp32", "int8")

Padded = list[NDArray[np.int64]]  # token ids and mask, [texts, tokens] each
Run = Callable[[Padded], NDArray[np.float32]]


class Logits(torch.nn.Module):
    """The model as a function of two tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model(input_ids=ids, attention_mask=mask).logits


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--vocabulary", type=int, default=21_128, help="entries")
    parser.add_argument("--count", type=int, default=48, help="texts in a turn")
    parser.add_argument("--cases", nargs="+", default=CASES, help="as in bench.inference")
    parser.add_argument("--onnx", nargs="*", choices=ONNX, default=ONNX, help="what ONNX Runtime does")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    texts = list(read_texts(args.texts, args.count * (1 + args.repeats)))
    random.Random(1).shuffle(texts)
    turns = [texts[start : start + args.count] for start in range(0, len(texts), args.count)]
    with TemporaryDirectory() as scratch:
        folder = save_base(Path(scratch), read_texts(args.texts, 5_000), args.vocabulary)
        lines = {f"streamer {case}": Line(folder, case) for case in args.cases}
        backend = next(iter(lines.values())).backend
        one, _ = pipelines(folder, backend.max_length)
        cases: dict[str, Case] = {"pipeline, one by one": one, **lines}
        for precision in args.onnx:
            run = onnxruntime_run(folder, precision)
            cases |= {
                f"onnxruntime {precision}, {how}": through(backend, run, tokens)
                for how, tokens in BUDGETS.items()
            }
        answers = {name: case(turns[0]) for name, case in cases.items()}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for turn in turns[1:]:
            for name, case in cases.items():
                started = time.perf_counter()
                case(turn)
                seconds[name].append(time.perf_counter() - started)
    report(answers, seconds, lines)


def onnxruntime_run(folder: Path, precision: str) -> Run:
    import onnxruntime

    print(f"preparing ONNX Runtime, {precision}", flush=True)
    model: Any = Logits(AutoModelForSequenceClassification.from_pretrained(folder).eval())
    example = (torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64))
    path = str(folder / f"{precision}.onnx")
    names = ["ids", "mask"]
    axes = {name: {0: "texts", 1: "tokens"} for name in names}
    torch.onnx.export(
        model, example, path, input_names=names, dynamic_axes=axes, dynamo=False, opset_version=17
    )
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        plain, path = path, str(folder / "quantized.onnx")
        quantize_dynamic(plain, path, weight_type=QuantType.QInt8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: cast(
        "NDArray[np.float32]", session.run(None, dict(zip(names, batch, strict=True)))[0]
    )


def through(backend: TorchBackend, run: Run, tokens: int) -> Case:
    """What a backend around `run` would do with a window of texts."""
    budget = TokenBudget(max_texts=MAX_TEXTS, max_tokens=tokens, max_latency=1.0, adaptive=False)

    def case(texts: Sequence[str]) -> list[Answer]:
        jobs = jobs_of(backend, texts)
        answers: dict[int, Answer] = {}
        for batch in plan(jobs, budget):
            logits = torch.from_numpy(run(padded(batch.jobs)).astype(np.float32))
            for job, scores in zip(batch.jobs, logits.softmax(-1).tolist(), strict=True):
                answers[id(job)] = ("negative", "positive")[scores[1] > scores[0]], max(scores)
        return [answers[id(job)] for job in jobs]

    return case


def padded(jobs: Sequence[Job]) -> Padded:
    ids = np.zeros((len(jobs), max(job.tokens for job in jobs)), dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, job in enumerate(jobs):
        ids[number, : job.tokens] = cast("NDArray[np.int32]", job.encoded)
        mask[number, : job.tokens] = 1
    return [ids, mask]


if __name__ == "__main__":
    main()
