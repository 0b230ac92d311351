"""Files broken at any byte: refused with file, line and reason, or kept in part; never anything else."""

from __future__ import annotations

import gzip
import random

import pytest

from connectors.head_end.formats import DecodeError, Options, decode
from tests.formats.samples import ALL, CSV, JSON
from tests.formats.test_containers import zipped

SAMPLES = ALL | {"zip": zipped(a=CSV, b=JSON), "gzip": gzip.compress(CSV)}
INSERTED = [b'"', b"\n", b",", b"\0", b"<", b"{", b"9" * 70, b"\xff", "１".encode()]


def survives(data: bytes, zone: str | None) -> str:
    decoded, refused = None, None
    try:
        decoded = decode(data, Options(name="f", zone=zone))
    except DecodeError as error:
        refused = error
    if refused is not None or decoded is None:
        assert refused is not None
        assert refused.line >= 1
        assert refused.reason
        assert "\n" not in str(refused)
        return "refused"
    for block in decoded.blocks:
        block.check()
    for problem in decoded.problems:
        assert problem.line >= 1
        assert problem.what
    return "part" if decoded.problems else "whole"


@pytest.mark.parametrize("name", SAMPLES)
def test_any_byte_may_be_broken(name: str) -> None:
    sample, dice = SAMPLES[name], random.Random(name)
    outcomes: set[str] = set()
    for at in range(0, len(sample), 1 if len(sample) < 900 else 2):
        zone = dice.choice([None, "Europe/Berlin"])
        flipped = sample[:at] + bytes([sample[at] ^ 1 << dice.randrange(8)]) + sample[at + 1 :]
        for data in (sample[:at], flipped, sample[:at] + dice.choice(INSERTED) + sample[at:], sample[:at] + sample[at + 1 :]):
            outcomes.add(survives(data, zone))
    assert outcomes >= {"refused", "whole"}


def test_noise_is_refused() -> None:
    dice = random.Random(1)
    for size in (1, 2, 3, 4, 10, 100, 5000):
        for head in (
            b"",
            b"100,NEM12,",
            b"200,",
            b"250,",
            b"{",
            b"[",
            b"<",
            b"PK\x03\x04",
            b"\x1f\x8b",
            b"device,channel,unit,seconds,start,value\n",
        ):
            survives(head + dice.randbytes(size), "UTC")


def test_the_same_bytes_give_the_same_blocks() -> None:
    for sample in SAMPLES.values():
        one, two = (decode(sample, Options(payload="p", received_at=5)) for _ in range(2))
        assert [block.to_record() for block in one.blocks] == [block.to_record() for block in two.blocks]
