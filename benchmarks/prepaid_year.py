"""``python -m benchmarks.prepaid_year``: a year of prepaid accounts under seeded trouble against an independent recomputation.

Each shard is one partition in one zone: late, lost, repeated, estimated and corrected usage, top-ups, reversals, emergency credit,
debts, holds, meter exchanges, move-outs, postpaid and back, tariffs that change, commands that get lost, and kills. Balances are compared
to the smallest unit with an independent calculation, every notice and cut with its rules as it happens. The first difference ends the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

SHARD = 50  # accounts


def shard(seed: int, accounts: int, days: int, kills: int) -> tuple[Counter[str], float]:
    """What happened in one shard, and its processor seconds. Raises AssertionError where anything is wrong."""
    from tests.prepaid.year import Year

    began = time.process_time()
    counts = Year(seed, accounts, days, kills).run()
    return counts, time.process_time() - began


def run(accounts: int, days: int, processes: int, kills: int, seed: int) -> dict[str, object]:
    """The figures of a whole run."""
    began, seconds, counts = time.monotonic(), 0.0, Counter[str]()
    sizes = [min(SHARD, accounts - first) for first in range(0, accounts, SHARD)]
    with ProcessPoolExecutor(processes) as pool:
        parts = [pool.submit(shard, seed + number, size, days, kills) for number, size in enumerate(sizes)]
        for number, part in enumerate(as_completed(parts), 1):
            if part.exception() is not None:
                pool.shutdown(cancel_futures=True)
            told, spent = part.result()
            counts, seconds = counts + told, seconds + spent
            print(f"{number} of {len(parts)} shards are right", file=sys.stderr, flush=True)
    postings = sum(count for name, count in counts.items() if name.startswith("posting "))
    return {
        "accounts": accounts, "days": days, "postings": postings, "equal": True, "processor_seconds": round(seconds, 1),
        "seconds": round(time.monotonic() - began, 1), **dict(sorted(counts.items())),
    }  # fmt: skip


def main() -> None:
    """Reads the options, prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=366)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20, help="per shard and year")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(run(options.accounts, options.days, options.processes, options.kills, options.seed)))


if __name__ == "__main__":
    main()
