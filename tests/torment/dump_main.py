"""Everything a user can see in a store, sorted, as NDJSON: ``python -m tests.torment.dump_main FOLDER``.

Version numbers are left out of final rows and exceptions: they count the messages of a partition in the order they arrived, which two
runs need not share. What arrived, and the order per channel, is the same. For the same reason anomalies are left out: their models learn
from many channels in the order these arrive (that a given order always gives the same is proven in tests/chain and tests/insights).
"""

from __future__ import annotations

import sys

import orjson

from connectors.clickhouse.store import open_store

QUERIES = {
    "final_days": "SELECT * EXCEPT (version, replaces, payload) FROM final_days FINAL ORDER BY device, channel, day, seconds",
    "register_reads": "SELECT * EXCEPT (version, replaces, payload) FROM register_reads FINAL ORDER BY device, channel, at",
    "exceptions": "SELECT * EXCEPT (version, payload) FROM vee_exceptions FINAL WHERE rule != 'anomaly' ORDER BY id",
    "determinant_days": "SELECT * EXCEPT (version, replaces, payload) FROM determinant_days FINAL ORDER BY device, channel, day",
    "bill_determinants": "SELECT * FROM bill_determinants FINAL ORDER BY id",
    "payloads": "SELECT id, status, reads, finals, dead FROM payloads ORDER BY id",
}

if __name__ == "__main__":
    store = open_store(f"chdb://{sys.argv[1]}")
    for name, query in QUERIES.items():
        for row in store.query_arrow(query).to_pylist():
            sys.stdout.buffer.write(orjson.dumps({"table": name, **row}, default=str) + b"\n")
    store.close()
