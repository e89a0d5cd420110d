"""Ways through the layers of one model on one device: whose code, compiled or not, in which numbers.

    python -m bench.ways --texts reviews.csv.gz --model base --device cuda --sizes 512 4096 16384

`generic` is transformers' code on packed rows; `functional` ours, with the weights as trained; `blocked` the
same with oneDNN's layout (CPU); `compiled` the same by torch.compile; `int8` (CPU), `fp8` (CUDA) quantized.
`products alone` are the multiplications of the linear layers and nothing else: what no way can beat. All
get the same batches of real texts, filled to each size, and take turns; the figures are medians, in tokens
of text a second. On CUDA nothing waits for the device before the end of a turn, `two streams` has the threads
that the worker has, and the last table has a `graph`: the launches of one text, captured once.

`--model` is anything that model.name may be, or `base`: random weights in the shape of BERT-base.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from streamer.backends.torch import devices, location  # before torch: it sets what OpenMP reads

import torch  # isort: skip
from torch import Tensor

from bench.inference import jobs_of, save_base
from bench.topics import read_texts
from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.flops import peak_flops
from streamer.backends.torch.forward import Packed
from streamer.backends.torch.functional import Functional, Layer, Names, find_names
from streamer.backends.torch.linear import Blocked, Dense, Int8
from streamer.backends.torch.loading import Encoder, load_encoder, load_model
from streamer.backends.torch.long_texts import LongTexts
from streamer.backends.torch.precision import choose_precision, set_precision
from streamer.backends.torch.quantization import quantize
from streamer.backends.torch.selftest import choose_forward, confirm, drift_of
from streamer.backends.torch.tokenizing import TextEncoder
from streamer.planner import plan
from streamer.sizing import TokenBudget
from streamer.tasks.classification import ClassificationTask

WAYS = ("generic", "functional", "blocked", "compiled", "int8", "fp8")
MAX_TEXTS = 1024

Batch = list[Tokens]
Run = Callable[[Sequence[Batch]], object]


class Way(NamedTuple):
    """`layers` are None where they are not ours, or not to be run by hand."""

    forward: Packed
    layers: Functional | None = None


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column `text`; .gz is fine")
    parser.add_argument("--model", default="base", help="a model's folder or name, or `base`")
    parser.add_argument("--vocabulary", type=int, default=21_128, help="entries, for --model base")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 4096], help="of the batches, in tokens")
    parser.add_argument("--count", type=int, default=256, help="texts in a turn")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = devices.choose_device(args.device)
    precision = choose_precision(args.precision, device)
    with TemporaryDirectory() as scratch:
        name = args.model
        if name == "base":
            name = str(save_base(Path(scratch), read_texts(args.texts, 5_000), args.vocabulary))
        where = location.locate(name)
        model = load_model(where, ClassificationTask.model_class)
        encoder = load_encoder(where, model, None)
    generic = choose_forward(model, encoder)
    set_precision(model, precision, device)
    model.to(device)
    if device.type == "cuda" and isinstance(generic, Packed):
        generic = confirm(generic, model, encoder, precision)
    names = find_names(model.base_model)
    if names is None or not isinstance(generic, Packed):
        raise SystemExit(f"{args.model}: only transformers' code runs it, {generic.reason or 'packed'}")
    ways = ways_through(generic, model, names, args.ways)
    shown = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{args.model} on {shown}, {precision}, {args.count} texts, medians of {args.repeats} turns")
    with torch.inference_mode():
        differ(ways, generic, model, encoder)
        compare(ways, batches_of(encoder, args), args.repeats, peak_flops(device, precision))
        one_text(ways, encoder, args.repeats)


def ways_through(generic: Packed, model: Any, names: Names, wanted: Sequence[str]) -> dict[str, Way]:
    """Those of `wanted` that the device has."""
    cuda = generic.device.type == "cuda"

    def layers(make: Callable[[Dense], Any]) -> Functional:
        return Functional(model.base_model, names, make)

    def own(make: Callable[[Dense], Any]) -> Way:
        return Way(generic.through(found := layers(make)), found)

    def compiled() -> Any:
        # Frozen, it lays the weights out for oneDNN, as `blocked` does. On CUDA there is nothing to lay out.
        return torch.compile(layers(as_trained), dynamic=True, options={"freezing": not cuda})

    def fp8() -> Way:
        quantize(found := layers(as_trained), "fp8")
        return Way(generic.through(found), found)

    known: dict[str, Callable[[], Way]] = {
        "generic": lambda: Way(generic),
        "functional": lambda: own(as_trained),
        "compiled": lambda: Way(generic.through(compiled())),
    }
    known |= {"fp8": fp8} if cuda else {"blocked": lambda: own(Blocked), "int8": lambda: own(Int8)}
    return {name: known[name]() for name in wanted if name in known}


def as_trained(dense: Dense) -> Dense:
    return dense


def batches_of(encoder: Encoder, args: Any) -> dict[int, list[Batch]]:
    """The same texts in batches of each size."""
    jobs = jobs_of(TextEncoder(encoder, LongTexts()), list(read_texts(args.texts, args.count)))
    found = {}
    for size in args.sizes:
        budget = TokenBudget(max_texts=MAX_TEXTS, max_tokens=size, max_latency=1.0, adaptive=False)
        found[size] = [[job.encoded for job in batch.jobs] for batch in plan(jobs, budget)]
    return found


def differ(ways: dict[str, Way], generic: Packed, model: Any, encoder: Encoder) -> None:
    """How far the logits of each way are from those of transformers' code, on the texts of the self-test."""
    for name, (forward, _) in ways.items():
        print(f"{name}: logits differ by {drift_of(forward, generic, model, encoder):.1e}")


def compare(ways: dict[str, Way], batches: dict[int, list[Batch]], repeats: int, peak: float | None) -> None:
    """Print tokens a second, a row for each way and a column for each size."""
    sizes = list(batches)
    rates: dict[str, list[float]] = {}
    for size in sizes:
        cases = {name: in_turn(way.forward) for name, way in ways.items()}
        for name, (forward, layers) in ways.items():
            if layers:
                cases[f"{name}, products alone"] = products_of(forward, layers)
            if forward.device.type == "cuda":
                cases[f"{name}, two streams"] = two_streams(forward)
        tokens = sum(len(row) for batch in batches[size] for row in batch)
        for name, seconds in take_turns(cases, batches[size], repeats).items():
            rates.setdefault(name, []).append(tokens / seconds)
    print("| way | " + " | ".join(f"{size} tokens" for size in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for name, row in rates.items():
        print(f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in row) + " |")
    if peak:
        print(f"the peak of the data sheet is {peak / 1e12:,.0f}e12 operations a second")


def take_turns(cases: dict[str, Run], batches: Sequence[Batch], repeats: int) -> dict[str, float]:
    """The median seconds of each case, after one untimed turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(1 + repeats):
        for name, run in cases.items():
            started = time.perf_counter()
            run(batches)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(taken) for name, taken in seconds.items()}


def in_turn(forward: Packed) -> Run:
    """One batch after another; the only wait is at the end."""

    def run(batches: Sequence[Batch]) -> object:
        return [forward(batch) for batch in batches][-1].cpu()

    return run


def two_streams(forward: Packed) -> Run:
    """As the worker runs them: each thread has a stream, and waits for its own batches."""
    lanes = devices.Lanes(forward.device)

    def one(batch: Batch) -> Tensor:
        with torch.inference_mode():
            return lanes.run(forward, batch)

    pool = ThreadPoolExecutor(lanes.threads)
    return lambda batches: list(pool.map(one, batches))


def products_of(forward: Packed, layers: Functional) -> Run:
    """The linear layers alone, on as many rows as a batch has."""
    dtype = next(layers.embeddings.parameters()).dtype
    width = cast(Layer, layers.layers[0]).norm.weight.shape[0]

    def run(batches: Sequence[Batch]) -> object:
        x = torch.zeros(0)
        for batch in batches:
            rows = forward.pack(batch).ids.shape[1]
            x = torch.ones((rows, width), dtype=dtype, device=forward.device)
            for part in layers.layers:
                layer = cast(Layer, part)
                layer.qkv(x), layer.out(x), layer.down(layer.up(x))
        return x[0, 0].cpu()

    return run


def one_text(ways: dict[str, Way], encoder: Encoder, repeats: int) -> None:
    """Print how long a text alone takes from the host and back."""
    rows = [TextEncoder(encoder, LongTexts()).row(24)]
    cases = {name: in_turn(way.forward) for name, way in ways.items()}
    for name, (forward, _) in ways.items():
        if forward.device.type == "cuda":
            cases[f"{name}, graph"] = replayed(forward, rows)
    print("| way | ms for a text of 24 tokens |\n|---|---|")
    for name, seconds in take_turns(cases, [rows], max(20, repeats)).items():
        print(f"| {name} | {1000 * seconds:.2f} |")


def replayed(forward: Packed, rows: Batch) -> Run:
    """The launches of one batch, captured and sent again as one."""
    packing = forward.pack(rows)
    side = torch.cuda.Stream(forward.device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(forward.device))
    with torch.cuda.stream(side):
        forward.run(packing)
    torch.cuda.current_stream(forward.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = forward.run(packing)

    def run(batches: Sequence[Batch]) -> object:
        fresh = forward.pack(batches[0])
        packing.ids.copy_(fresh.ids)
        graph.replay()
        return found.cpu()

    return run


if __name__ == "__main__":
    main()
