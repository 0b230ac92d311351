"""What is decided before and after quantities are calculated: wait or not, whether a device was there, whether the result is plausible."""

from __future__ import annotations

from collections.abc import Sequence

from streams.determinants.usage.exact import divide


def alignment_and_delay(expected: int, usable: int, estimated: int, most_missing: int, most_estimated: int) -> str:
    """Waits for data that are not good enough yet.

    Formula: wait while ``missing > most_missing · expected`` or ``estimated > most_estimated · expected`` (shares in percent), at most for
    the retry window behind the due time; then usage is released as it is, its quality flagged.

    Edge cases: all channels of the subscription are cut off at one moment, the period's end. A channel is expected from its first day
    with data on, or from the subscription's begin where that is known. Registers expect a reading at or after the end within
    `reading_tolerance`. No channel at all: wait.

    Source: Oracle Utilities MDM, rule *Alignment and Delay*.
    """
    missing = expected - usable
    if not expected:
        return "no data yet"
    if missing * 100 > most_missing * expected:
        return f"{missing} of {expected} intervals or readings are missing"
    if estimated * 100 > most_estimated * expected:
        return f"{estimated} of {expected} intervals or readings are estimated"
    return ""


def installed_device_check(spans: Sequence[tuple[int, int]], begin: int, end: int) -> str:
    """Whether a device was installed in the period.

    Formula: some span of master data in which a channel of the subscription is installed overlaps the period; without master data, a
    channel with data in it counts.

    Edge cases: a device that is installed for part of the period is enough; the quality tells of the rest.

    Source: Oracle Utilities MDM, rule *Check Existence of Installed Device*.
    """
    return "" if any(a < end and begin < b for a, b in spans) else "no device was installed in the period"


def usage_high_low(amount: int, days: int, before: int, days_before: int, high: int, low: int) -> str:
    """Whether usage is out of line with the previous period or the same one a year before.

    Formula: daily use now against then; too high where ``now > high % · then``, too low where ``now < low % · then``.

    Edge cases: nothing is said without a past period, where both are below the floor, or of negative use then.

    Source: Oracle Utilities MDM, rule *Usage High/Low* (D2-USGHIGLOW).
    """
    if before <= 0 or not days or not days_before:
        return ""
    now, then = divide(amount, days), divide(before, days_before)
    if now * 100 > then * high:
        return f"daily use of {now / 1e6:.3f} is above {high} % of {then / 1e6:.3f} before"
    if now * 100 < then * low:
        return f"daily use of {now / 1e6:.3f} is below {low} % of {then / 1e6:.3f} before"
    return ""


def round_and_adjust(amount: int, decimals: int, parts: Sequence[int]) -> tuple[int, int]:
    """Rounds a quantity, and adjusts it to the sum of others.

    Formula: ``round(amount, decimals)``, half to even; with ``sources``: the sum of the rounded sources, so that a bill's lines add up
    to its total.

    Edge cases: returns the difference to the exact amount too; where it is above `max_difference` the usage is held.

    Source: Oracle Utilities MDM, rule *Round and Adjust* (D2-RNDADJUSG).
    """
    step = 10 ** (6 - decimals)
    rounded = sum(divide(part, step) for part in parts) * step if parts else divide(amount, step) * step
    return rounded, rounded - amount


def material(now: int, before: int, absolute: int, percent: int) -> bool:
    """Whether a difference is worth a correction.

    Formula: ``|now − before| > absolute`` and ``> percent · |before|`` (millionths of a percent). ``before`` is what was
    *sent* last: differences that were let pass add up until they matter.

    Edge cases: a quantity that was not there or is no longer there is always material; so is a sign
    that flips beyond the absolute threshold.

    Source: the correction thresholds of Oracle's final measurement replacement, applied to quantities.
    """
    difference = abs(now - before)
    return difference > absolute and (difference * 100_000_000 > percent * abs(before) or (now > 0) != (before > 0))
