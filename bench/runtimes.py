"""Other runtimes for the CPU against streamer's own way through a model, on real texts, in one run.

    uv pip install openvino nncf onnx onnxruntime
    python -m bench.runtimes --texts reviews_zh.csv.gz --vocabulary 21128

The model has random weights in the shape of BERT-base (`bench.inference`). OpenVINO and ONNX Runtime get the
tokens from our tokenizer, one text a call, and in batches of like length, with padding. All have two threads,
and take turns after one untimed turn each; figures are medians, ratios are to the pipeline one by one.
OpenVINO's int8 is calibrated by NNCF on some of the texts; ONNX Runtime's is dynamic, like ours.
"""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
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
BUDGETS = {"by length": 2048, "by length, 512": 512, "one by one": 1}  # tokens, padding included
RUNTIMES = ("openvino-fp32", "openvino-bf16", "openvino-int8", "onnxruntime-fp32", "onnxruntime-int8")

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
    parser.add_argument("--calibration", type=int, default=32, help="texts that NNCF sees")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    texts = list(read_texts(args.texts, args.count))
    random.Random(1).shuffle(texts)
    with TemporaryDirectory() as scratch:
        folder = save_base(Path(scratch), read_texts(args.texts, 5_000), args.vocabulary)
        lines = {f"streamer {case}": Line(folder, case) for case in ("fp32", "bf16", "bf16+int8")}
        backend = next(iter(lines.values())).backend
        one, _ = pipelines(folder, backend.max_length)
        cases: dict[str, Case] = {"pipeline, one by one": one, **lines}
        sample = [padded([job]) for job in jobs_of(backend, texts[: args.calibration])]
        for name, run in runtimes(folder, sample, args.runtimes):
            cases |= {f"{name}, {how}": through(backend, run, tokens) for how, tokens in BUDGETS.items()}
        answers = {name: case(texts) for name, case in cases.items()}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(args.repeats):
            for name, case in cases.items():
                started = time.perf_counter()
                case(texts)
                seconds[name].append(time.perf_counter() - started)
    report(answers, seconds, lines)


def runtimes(folder: Path, sample: Sequence[Padded], wanted: Sequence[str]) -> Iterator[tuple[str, Run]]:
    """The model in each runtime and precision of `wanted`."""
    model = Logits(AutoModelForSequenceClassification.from_pretrained(folder).eval())
    example = (torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64))
    for name in wanted:
        print(f"preparing {name}", flush=True)
        runtime, _, precision = name.partition("-")
        make = openvino_run if runtime == "openvino" else onnxruntime_run
        yield name, make(model, example, precision, sample, folder)


def openvino_run(model: Any, example: Any, precision: str, sample: Sequence[Padded], folder: Path) -> Run:
    import openvino

    free = openvino.PartialShape([-1, -1])
    with torch.inference_mode():
        converted = openvino.convert_model(model, example_input=example, input=[free, free])
    if precision == "int8":
        import nncf

        converted = nncf.quantize(
            converted,
            nncf.Dataset(sample),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(sample),
        )
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
    }
    request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
    return lambda batch: cast("NDArray[np.float32]", request.infer(batch)[0])


def onnxruntime_run(model: Any, example: Any, precision: str, sample: Sequence[Padded], folder: Path) -> Run:
    import onnxruntime

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
