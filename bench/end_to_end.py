"""`streamer bench --end-to-end` over a real Kafka and Redis of its own, with the arguments that follow.

    python -m bench.end_to_end reviews.csv.gz --count 20000 --no-pipeline

`Kafka to Kafka` against `streamer alone` is the share of the model's speed that the line leaves. Both have
the same cores, on which Kafka and Redis run too.
"""

from __future__ import annotations

import os
import sys

from bench import servers
from streamer.cli import main as streamer


def main() -> int:
    with servers.running(servers.nobody()) as where:
        os.environ["STREAMER__KAFKA__BOOTSTRAP_SERVERS"] = where.bootstrap_servers
        os.environ["STREAMER__REDIS__URL"] = where.redis_url
        return streamer(["bench", "--end-to-end", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
