"""What claims cost by themselves, at a given rate: `python -m bench.claims --rate 50000`.

Windows of new ids are claimed and marked as the line does it, at that rate. The report says what share of a
core the engine's thread and Redis spend on it, and for what share of the time the engine is in the calls.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from uuid import uuid4

from redis import Redis

from streamer.ledger import Lane
from streamer.records import Job, Record, TopicPartition
from streamer.state.connection import connect
from streamer.state.redis import RedisDeduplicator

AT = TopicPartition("texts.in", 0)


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--redis", help="URL of a running Redis (default: one is started)")
    parser.add_argument("--rate", type=int, default=50_000, help="ids a second")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    if args.redis is not None:
        measure(args.redis, args.rate, args.window, args.seconds)
        return
    from tests.servers import start_redis

    server = start_redis()
    try:
        measure(server.url, args.rate, args.window, args.seconds)
    finally:
        server.stop()


def measure(url: str, rate: int, window: int, seconds: float) -> None:
    claims = RedisDeduplicator(
        connect([url]), prefix=f"bench:{time.time_ns()}:", ttl=600, generations={AT.topic: "generation-1"}
    )
    windows = [jobs(number * window, window) for number in range(int(rate * seconds) // window)]
    with Redis.from_url(url) as client:
        busy = redis_seconds(client)
        inside, waited, start = 0.0, 0.0, time.perf_counter()
        for number, jobs_of_it in enumerate(windows):
            due = start + number * window / rate
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            cpu, wall = time.thread_time(), time.perf_counter()
            claimed, marked = claims.claim(jobs_of_it), claims.mark({AT: (number + 1) * window})
            while (verdicts := claimed.get(1.0)) is None or marked.get(1.0) is None:
                pass
            inside += time.thread_time() - cpu
            waited += time.perf_counter() - wall
            assert verdicts == [None] * window
        took = time.perf_counter() - start
        busy = redis_seconds(client) - busy
    done = len(windows) * window
    print(
        f"{done / took:,.0f} ids/s in windows of {window}: the engine computes {inside / took:.1%} of "
        f"the time and is in the calls {waited / took:.1%} of it; Redis takes {busy / took:.1%} of a core"
    )


def jobs(first: int, count: int) -> list[Job]:
    return [
        Job(Record(AT.topic, AT.partition, offset, 0, None, b"", []), Lane(AT), 0, uuid4().hex)
        for offset in range(first, first + count)
    ]


def redis_seconds(client: Redis) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


if __name__ == "__main__":
    main()
