"""Quantities, units, conditions, identities: exact, ordered, the same everywhere."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from schemas import conditions, quantity, rules, units
from schemas.identity import identity, murmur2, partition_of

# --- quantities ---------------------------------------------------------------------------------------------------------------

micros = st.integers(-quantity.LIMIT, quantity.LIMIT)


@given(micros)
def test_text_of_a_quantity_is_exact_and_comes_back(value: int) -> None:
    text = quantity.text_of(value)
    assert Decimal(text) * 1_000_000 == value
    assert quantity.parse(text) == value
    assert "." not in text or not text.endswith(("0", "."))


@given(st.decimals(min_value=-1_000_000, max_value=1_000_000, places=9, allow_nan=False))
def test_decimals_beyond_the_sixth_are_rounded_half_to_even(value: Decimal) -> None:
    assert quantity.parse(f"{value:f}") == round(Fraction(value) * 1_000_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.0000005", 0), ("0.0000015", 2), ("-0.0000005", 0), ("-0.0000015", -2), ("0.00000050001", 1),
        ("-0", 0), ("+1.5", 1_500_000), (".5", 500_000), ("5.", 5_000_000), (" 1\t", 1_000_000), ("007", 7_000_000),
        ("4000000000000", quantity.LIMIT), ("-4000000000000", -quantity.LIMIT),
    ],
)  # fmt: skip
def test_plain_decimals_are_read(text: str, value: int) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1e3", "1E3", "1,234", "1 234", "nan", "NaN", "inf", "-Infinity", "--1", "+-1", ".", "-.", "1.2.3", "0x10", "1_000",
        "١٢", "１", "1.5kWh", "4000000000000.000001", "9" * 65, "1\n", "½", "\N{MINUS SIGN}1", "1\0",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"plain decimal|larger than"):
        quantity.parse(text)


@given(micros, micros)
def test_two_quantities_add_within_int64(a: int, b: int) -> None:
    assert -(2**63) <= a + b < 2**63


# --- units --------------------------------------------------------------------------------------------------------------------

NAMES = sorted(unit.name for unit in units.UNITS.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_found_in_any_spelling_of_its_letters(name: str) -> None:
    assert {units.resolve(text).name for text in (name, name.upper(), name.lower(), f" {name} ")} == {name}


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        (1_000_000, "MWh", "kWh", 1_000_000_000),
        (3_600_000, "MJ", "kWh", 1_000_000),
        (1_000_000, "ft3", "L", 28_316_847),
        (1_000_000, "CCF", "m3", 2_831_685),
        (1_000_000, "kvarh", "VARH", 1_000_000_000),
        (500_000, "Wh", "kWh", 500),
        (500, "Wh", "kWh", 0),  # half to even
        (1_500, "Wh", "kWh", 2),
    ],
)
def test_conversions_are_exact_and_rounded_half_to_even(value: int, source: str, target: str, result: int) -> None:
    assert units.convert(value, source, target) == result


@given(st.integers(-(10**12), 10**12), st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_conversion_there_and_back_is_off_by_its_rounding_only(value: int, source: str, target: str) -> None:
    a, b = units.resolve(source), units.resolve(target)
    if a.dimension != b.dimension:
        with pytest.raises(ValueError, match="does not convert"):
            units.convert(value, source, target)
        return
    back = units.convert(units.convert(value, source, target), target, source)
    assert abs(back - value) <= Fraction(1, 2) * (b.ratio / a.ratio) + Fraction(1, 2)


def test_an_unknown_unit_converts_to_itself_only() -> None:
    assert units.convert(7, "furlong", "furlong") == 7
    with pytest.raises(ValueError, match="does not convert"):
        units.convert(7, "furlong", "kWh")


# --- conditions ---------------------------------------------------------------------------------------------------------------


def test_ranges_are_disjoint_ordered_and_without_gaps() -> None:
    bounds = [(band.bottom, band.top) for band in conditions.RANGES]
    assert bounds[0][0] == 100
    assert all(top + 1 == bottom for (_, top), (bottom, _) in itertools.pairwise(bounds))


def test_every_code_has_a_range_and_fits_the_state() -> None:
    codes = {name: code for name, code in vars(conditions).items() if name.isupper() and isinstance(code, int)}
    assert len(set(codes.values())) == len(codes)
    for code in codes.values():
        assert code % 100 == 0
        assert code // 100 < 2**16
        assert conditions.name_of(code)


@given(st.integers(1, 7999).map(lambda n: n * 100))
def test_a_code_in_steps_of_100_is_read_as_itself(code: int) -> None:
    if code >= 100:
        assert conditions.parse(f"{code:06d}") == code


@pytest.mark.parametrize("text", ["", "good", "50000", "500001", "000000", "800000", "５０００００", "-10000", "1e5000"])
def test_other_conditions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is none of actual, estimated, missing, outage, edited"):
        conditions.parse(text)


def test_only_missing_and_invalid_are_not_billed() -> None:
    assert [band.name for band in conditions.RANGES if not band.billable] == ["invalid", "missing"]


# --- identities and partitions ------------------------------------------------------------------------------------------------


def test_identities_tell_parts_apart_and_never_change() -> None:
    assert identity("a", "bc") != identity("ab", "c") != identity("abc")
    assert identity("a", 1) == identity("a", "1") == identity(b"a", b"1")
    assert identity("payload", 7) == "90e34ebffa7a78b473fcbe04b79b5189"


def test_keys_land_where_kafka_puts_them() -> None:
    from connectors.kafka.client import KafkaSettings, producer_config
    from connectors.kafka.mock import MockBroker

    placed: dict[bytes, int] = {}
    keys = ["", "a", "meter-1", "ÄÖ", "6123456789", "x" * 33, *(f"device-{n}" for n in range(200))]
    with MockBroker() as broker:
        producer = Producer(producer_config(KafkaSettings(bootstrap=broker.bootstrap), linger_ms=0))
        for key in keys[1:]:
            producer.produce("t", b"v", key=key.encode(), on_delivery=lambda _, m: placed.update({m.key(): m.partition()}))
        assert producer.flush(120) == 0
    assert placed == {key.encode(): partition_of(key, 4) for key in keys[1:]}


@pytest.mark.parametrize(("key", "hashed"), [(b"", 275646681), (b"21", 1173551340), (b"foobar", 1357151166), (b"abc", 479470107)])
def test_murmur2_is_kafkas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed


# --- rules --------------------------------------------------------------------------------------------------------------------


def test_rule_positions_are_part_of_stored_data() -> None:
    """New rules go behind the last one; these never move."""
    assert rules.RULES[:16] == rules.VALIDATIONS
    assert len(set(rules.RULES)) == len(rules.RULES) <= 62
    assert [rules.BIT[name].bit_length() - 1 for name in rules.RULES] == list(range(len(rules.RULES)))
    assert rules.METHODS[0] == ""
    assert [rules.METHOD[name] for name in rules.METHODS] == list(range(len(rules.METHODS)))
