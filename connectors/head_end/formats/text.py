"""Delimited text as arrays: where fields begin, which decimals and which times stand in them. Compiled, without an object per value.

Field ``i`` of a table lies between ``starts[i]`` and ``starts[i + 1] - 1``; line ``k`` holds the fields ``firsts[k]`` up to
``firsts[k + 1]`` and begins in the file's line ``numbers[k]``. Blanks and quotes around a field are not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from connectors.head_end.formats.model import MAX_LINE, DecodeError
from schemas.arrow import numbers
from schemas.block import strings
from schemas.quantity import LIMIT, MICRO

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
OK, EMPTY, BAD, LARGE, ABSENT = 0, 1, 2, 3, 4  # status of a decimal
RANGE: Final = 5  # status of a time outside 1970-2100
NAIVE: Final = -(2**31)  # offset of a time that carries none
_ISO: Final = 256  # program of ISO 8601 times; other programs are literal bytes and 512 + directive
_EPOCH: Final = 257
_LONGEST: Final = 64  # characters of a number, as in schemas.quantity
_MAX_FIELDS: Final = 40_000_000

_SPACE, _TAB, _CR, _LF, _QUOTE = 32, 9, 13, 10, 34
_PLUS, _MINUS, _ZERO, _NINE, _COLON, _DOT, _COMMA = 43, 45, 48, 57, 58, 46, 44


@njit(cache=True)
def _scan(data, delimiter, starts, firsts, numbers, write):  # type: ignore[no-untyped-def]
    """Fields, lines, longest line and the line of a quote left open (0: none). With ``write`` fills the arrays too."""
    size = len(data)
    fields, lines, number, longest = 0, 0, 1, 0
    at, line_start = 0, 0
    while at < size:
        if write:
            firsts[lines] = fields
            numbers[lines] = number
        lines += 1
        line_start = at
        while True:  # one field per turn
            if write:
                starts[fields] = at
            fields += 1
            if at < size and data[at] == _QUOTE:
                opened = number
                at += 1
                while at < size:
                    byte = data[at]
                    if byte == _QUOTE:
                        if at + 1 < size and data[at + 1] == _QUOTE:
                            at += 1
                        else:
                            break
                    elif byte == _LF:
                        number += 1
                    at += 1
                if at >= size:
                    return fields, lines, longest, opened
            while at < size and data[at] != delimiter and data[at] != _LF:
                at += 1
            if at >= size or data[at] == _LF:
                break
            at += 1
        longest = max(longest, at - line_start)
        at += 1
        number += 1
    if write:
        starts[fields] = at
        firsts[lines] = fields
    return fields, lines, longest, 0


@njit(cache=True)
def trim(data, begin, end):  # type: ignore[no-untyped-def]
    """The field without blanks around it, then without quotes around that."""
    while begin < end and (data[begin] == _SPACE or data[begin] == _TAB or data[begin] == _CR):
        begin += 1
    while end > begin and (data[end - 1] == _SPACE or data[end - 1] == _TAB or data[end - 1] == _CR):
        end -= 1
    if end - begin >= 2 and data[begin] == _QUOTE and data[end - 1] == _QUOTE:
        begin += 1
        end -= 1
    return begin, end


@njit(cache=True)
def decimal(data, begin, end, point):  # type: ignore[no-untyped-def]
    """(millionths, status) of one decimal: the grammar, rounding and bounds of :func:`schemas.quantity.parse`."""
    while begin < end and (data[begin] == _SPACE or data[begin] == _TAB):
        begin += 1
    while end > begin and (data[end - 1] == _SPACE or data[end - 1] == _TAB):
        end -= 1
    if begin == end:
        return 0, EMPTY
    if end - begin > _LONGEST:
        return 0, BAD
    negative = data[begin] == _MINUS
    if negative or data[begin] == _PLUS:
        begin += 1
    whole, digits, large = 0, 0, False
    while begin < end and _ZERO <= data[begin] <= _NINE:
        if whole <= LIMIT // MICRO:
            whole = whole * 10 + (data[begin] - _ZERO)
        else:
            large = True
        digits += 1
        begin += 1
    part, places, seventh, rest = 0, 0, 0, False
    if begin < end and data[begin] == point:
        begin += 1
        while begin < end and _ZERO <= data[begin] <= _NINE:
            digit = data[begin] - _ZERO
            if places < 6:
                part = part * 10 + digit
            elif places == 6:
                seventh = digit
            elif digit:
                rest = True
            places += 1
            begin += 1
    if begin < end or digits + places == 0:
        return 0, BAD
    if large or whole > LIMIT // MICRO:
        return 0, LARGE
    while places < 6:
        part *= 10
        places += 1
    micros = np.int64(whole) * MICRO + np.int64(part)
    if seventh > 5 or (seventh == 5 and (rest or micros % 2 == 1)):
        micros += 1
    if micros > LIMIT:
        return 0, LARGE
    return (-micros if negative else micros), OK


@njit(cache=True)
def _decimals(data, starts, fields, point, words, ends, values, status):  # type: ignore[no-untyped-def]
    for i in range(len(fields)):
        field = fields[i]
        if field < 0:
            status[i] = ABSENT
            continue
        begin, end = trim(data, starts[field], starts[field + 1] - 1)
        values[i], status[i] = decimal(data, begin, end, point)
        if status[i] == BAD:
            word_start = 0
            for k in range(len(ends)):
                length = ends[k] - word_start
                if length == end - begin:
                    same = True
                    for j in range(length):
                        if words[word_start + j] != data[begin + j]:
                            same = False
                            break
                    if same:
                        status[i] = EMPTY
                        break
                word_start = ends[k]


@njit(cache=True)
def civil_days(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 of a civil date, or -1 where there is no such day."""
    if month < 1 or month > 12 or day < 1 or day > 31:
        return -1
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    if month == 2 and day > (29 if leap else 28):
        return -1
    if day == 31 and (month == 4 or month == 6 or month == 9 or month == 11):
        return -1
    y = year - 1 if month <= 2 else year
    era = y // 400
    yoe = y - era * 400
    doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468


@njit(cache=True)
def digits(text, at, end, most):  # type: ignore[no-untyped-def]
    """(value, position behind it) of up to ``most`` digits; value -1 if there is none."""
    value, first = 0, at
    while at < end and at - first < most and _ZERO <= text[at] <= _NINE:
        value = value * 10 + (text[at] - _ZERO)
        at += 1
    return (value if at > first else -1), at


@njit(cache=True)
def _offset(text, at, end):  # type: ignore[no-untyped-def]
    """(seconds, position) of ``Z``, ``+hh``, ``+hhmm`` or ``+hh:mm``; position -1 where it is none of them."""
    if at < end and (text[at] == 90 or text[at] == 122):
        return 0, at + 1
    if at >= end or (text[at] != _PLUS and text[at] != _MINUS):
        return 0, -1
    sign = -1 if text[at] == _MINUS else 1
    hours, after = digits(text, at + 1, end, 2)
    if after != at + 3 or hours > 18:
        return 0, -1
    minutes = 0
    if after < end:
        if text[after] == _COLON:
            after += 1
        minutes, behind = digits(text, after, end, 2)
        if behind != after + 2 or minutes > 59:
            return 0, -1
        after = behind
    return sign * (hours * 3600 + minutes * 60), after


@njit(cache=True)
def _iso(text, end):  # type: ignore[no-untyped-def]
    """(local seconds, offset, status) of an ISO 8601 time or date. Fractions of a second are dropped."""
    year, at = digits(text, 0, end, 4)
    if at != 4 or at >= end or text[at] != _MINUS:
        return 0, 0, BAD
    month, at = digits(text, 5, end, 2)
    if at != 7 or at >= end or text[at] != _MINUS:
        return 0, 0, BAD
    day, at = digits(text, 8, end, 2)
    if at != 10:
        return 0, 0, BAD
    hour, minute, second, offset = 0, 0, 0, NAIVE
    if at < end:
        if text[at] != 84 and text[at] != 116 and text[at] != _SPACE:
            return 0, 0, BAD
        hour, at = digits(text, 11, end, 2)
        if at != 13 or at >= end or text[at] != _COLON:
            return 0, 0, BAD
        minute, at = digits(text, 14, end, 2)
        if at != 16:
            return 0, 0, BAD
        if at < end and text[at] == _COLON:
            second, at = digits(text, 17, end, 2)
            if at != 19:
                return 0, 0, BAD
            if at < end and (text[at] == _DOT or text[at] == _COMMA):
                _, after = digits(text, at + 1, end, 18)
                if after == at + 1:
                    return 0, 0, BAD
                at = after
        if at < end:
            while at < end and text[at] == _SPACE:
                at += 1
            offset, at = _offset(text, at, end)
            if at != end:
                return 0, 0, BAD
    return moment(year, month, day, hour, minute, second, offset)


@njit(cache=True)
def moment(year, month, day, hour, minute, second, offset):  # type: ignore[no-untyped-def]
    days = civil_days(year, month, day)
    if minute > 59 or second > 59 or hour > 24 or (hour == 24 and (minute > 0 or second > 0)):
        return 0, 0, BAD
    if year < 1970 or year > 2100:
        return 0, 0, RANGE
    if days == -1:
        return 0, 0, BAD
    return days * 86400 + hour * 3600 + minute * 60 + second, offset, OK


@njit(cache=True)
def _directed(text, end, program):  # type: ignore[no-untyped-def]
    """(local seconds, offset, status) by a program of literals and directives (see :func:`compile_format`)."""
    year, month, day, hour, minute, second, offset, noon = 1970, 1, 1, 0, 0, 0, NAIVE, -1
    at = 0
    for step in program:
        if step < 256:
            if at >= end or text[at] != step:
                return 0, 0, BAD
            at += 1
            continue
        kind = step - 512
        value = 0
        if kind == 89:  # Y
            value, after = digits(text, at, end, 4)
            if after != at + 4:
                return 0, 0, BAD
            year, at = value, after
        elif kind == 98:  # b
            month = 0
            if at + 3 <= end:
                a, b, c = text[at] | 32, text[at + 1] | 32, text[at + 2] | 32
                for k in range(12):
                    if a == _MONTHS[3 * k] and b == _MONTHS[3 * k + 1] and c == _MONTHS[3 * k + 2]:
                        month = k + 1
            if month == 0:
                return 0, 0, BAD
            at += 3
        elif kind == 112:  # p
            if at + 2 > end or (text[at + 1] | 32) != 109 or ((text[at] | 32) != 97 and (text[at] | 32) != 112):
                return 0, 0, BAD
            noon = 1 if (text[at] | 32) == 112 else 0
            at += 2
        elif kind == 122:  # z
            offset, at = _offset(text, at, end)
            if at < 0:
                return 0, 0, BAD
        elif kind == 102:  # f
            value, at = digits(text, at, end, 18)
            if value < 0:
                return 0, 0, BAD
        else:
            value, at = digits(text, at, end, 2)
            if value < 0:
                return 0, 0, BAD
            if kind == 109:
                month = value
            elif kind == 100:
                day = value
            elif kind == 72 or kind == 73:
                hour = value
            elif kind == 77:
                minute = value
            elif kind == 83:
                second = value
            elif kind == 121:
                year = value + (1900 if value >= 69 else 2000)
    if at != end:
        return 0, 0, BAD
    if noon >= 0:
        if hour < 1 or hour > 12:
            return 0, 0, BAD
        hour = hour % 12 + 12 * noon
    return moment(year, month, day, hour, minute, second, offset)


@njit(cache=True)
def _stamps(data, starts, fields, program, seconds, offsets, status):  # type: ignore[no-untyped-def]
    """Times whose parts stand in ``fields[part, row]``; parts are joined with a blank before the program reads them."""
    text = np.empty(128, np.uint8)
    parts, rows = fields.shape
    for row in range(rows):
        length, good = 0, True
        for part in range(parts):
            field = fields[part, row]
            if field < 0:
                good = False
                break
            begin, end = trim(data, starts[field], starts[field + 1] - 1)
            if length + end - begin + 1 > 128:
                good = False
                break
            if part:
                text[length] = _SPACE
                length += 1
            for at in range(begin, end):
                text[length] = data[at]
                length += 1
        if not good:
            status[row] = BAD
        elif program[0] == _ISO:
            seconds[row], offsets[row], status[row] = _iso(text, length)
        elif program[0] == _EPOCH:
            value, at = digits(text, 0, length, 12)
            if value < 0 or at != length:
                status[row] = BAD
            elif value >= 4133980800:
                status[row] = RANGE
            else:
                seconds[row] = value
        else:
            seconds[row], offsets[row], status[row] = _directed(text, length, program)


_MONTHS: Final = np.frombuffer(b"janfebmaraprmayjunjulaugsepoctnovdec", np.uint8)
DIRECTIVES: Final = "YymdbHIMSpfz"


def compile_format(text: str) -> Ints:
    """A time format as program: ``iso``, ``epoch`` or directives as of strptime (:data:`DIRECTIVES`). Raises ValueError on others."""
    if text in ("iso", "epoch"):
        return np.array([_ISO if text == "iso" else _EPOCH], np.int64)
    steps: list[int] = []
    at = 0
    raw = text.encode()
    while at < len(raw):
        if raw[at : at + 1] == b"%":
            letter = chr(raw[at + 1]) if at + 1 < len(raw) else ""
            if letter not in DIRECTIVES or not letter:
                raise ValueError(f"time format {text!r}: %{letter} is not one of {', '.join('%' + c for c in DIRECTIVES)}")
            steps.append(512 + ord(letter))
            at += 2
        else:
            steps.append(raw[at])
            at += 1
    if not steps:
        raise ValueError("time format is empty")
    return np.array(steps, np.int64)


@njit(cache=True)
def _same(data, starts, one, other):  # type: ignore[no-untyped-def]
    a, a_end = trim(data, starts[one], starts[one + 1] - 1)
    b, b_end = trim(data, starts[other], starts[other + 1] - 1)
    if a_end - a != b_end - b:
        return False
    for i in range(a_end - a):  # noqa: SIM110 compiled: a generator is not
        if data[a + i] != data[b + i]:
            return False
    return True


@njit(cache=True)
def _runs(data, starts, fields, runs):  # type: ignore[no-untyped-def]
    """Numbers each row by its run of equal keys (all ``fields[part, row]`` equal to the row before); returns bytes of all runs' keys."""
    parts, rows = fields.shape
    run, total = -1, 0
    for row in range(rows):
        same = row > 0
        if same:
            for part in range(parts):
                if not _same(data, starts, fields[part, row - 1], fields[part, row]):
                    same = False
                    break
        if not same:
            run += 1
            for part in range(parts):
                begin, end = trim(data, starts[fields[part, row]], starts[fields[part, row] + 1] - 1)
                total += 4 + end - begin
        runs[row] = run
    return total


@njit(cache=True)
def _gather(data, starts, fields, rows, out, bounds, headed):  # type: ignore[no-untyped-def]
    """Copies the keys of ``rows``: each part as four bytes of length (little endian) if ``headed``, and its bytes."""
    at = 0
    for k in range(len(rows)):
        bounds[k] = at
        for part in range(fields.shape[0]):
            field = fields[part, rows[k]]
            begin, end = trim(data, starts[field], starts[field + 1] - 1)
            length = end - begin
            for shift in range(4 if headed else 0):
                out[at] = (length >> (8 * shift)) & 255
                at += 1
            for i in range(begin, end):
                out[at] = data[i]
                at += 1
    bounds[len(rows)] = at


@njit(cache=True)
def _blank_after(data, starts, firsts, lines, width, wide):  # type: ignore[no-untyped-def]
    """Marks lines that have something in fields beyond ``width``."""
    for k in range(len(lines)):
        line = lines[k]
        for field in range(firsts[line] + width, firsts[line + 1]):
            begin, end = trim(data, starts[field], starts[field + 1] - 1)
            if end > begin:
                wide[k] = True
                break


@njit(cache=True)
def _heads(data, starts, firsts, kinds):  # type: ignore[no-untyped-def]
    """The first field of each line as a number of up to three digits; -1 empty line, -2 anything else."""
    for line in range(len(kinds)):
        field = firsts[line]
        begin, end = trim(data, starts[field], starts[field + 1] - 1)
        kinds[line] = -2
        if begin == end:
            kinds[line] = -1 if firsts[line + 1] - field == 1 else -2
        elif end - begin <= 3:
            value, at = digits(data, begin, end, 3)
            if at == end:
                kinds[line] = value


@dataclass(frozen=True, eq=False)
class Table:
    """A delimited text split into lines and fields."""

    data: Bytes
    starts: npt.NDArray[np.int32]
    firsts: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.int32]
    delimiter: str

    def __len__(self) -> int:
        """Lines, empty ones included."""
        return len(self.numbers)

    @property
    def widths(self) -> Ints:
        """Fields per line."""
        return np.diff(self.firsts).astype(np.int64)

    def field(self, index: int) -> str:
        """One field as text, trimmed. Bytes that are not UTF-8 become U+FFFD."""
        raw = self.data[self.starts[index] : self.starts[index + 1] - 1].tobytes().strip(b" \t\r")
        if len(raw) >= 2 and raw[:1] == raw[-1:] == b'"':
            raw = raw[1:-1].replace(b'""', b'"')
        return raw.decode("utf-8", "replace")

    def line(self, index: int) -> list[str]:
        """All fields of a line."""
        first, end = int(self.firsts[index]), int(self.firsts[index + 1])
        raw = self.data[self.starts[first] : self.starts[end] - 1].tobytes()
        if b'"' in raw:
            return [self.field(i) for i in range(first, end)]
        return [cell.strip(" \t\r") for cell in raw.decode("utf-8", "replace").split(self.delimiter)]

    def kinds(self) -> Ints:
        """Record numbers of lines that begin with one (NEM12): -1 empty line, -2 none."""
        kinds = np.empty(len(self), np.int64)
        _heads(self.data, self.starts, self.firsts, kinds)
        return kinds

    def overfull(self, lines: Ints, width: int) -> npt.NDArray[np.bool_]:
        """Which lines hold something beyond ``width`` fields."""
        wide = np.zeros(len(lines), np.bool_)
        _blank_after(self.data, self.starts, self.firsts, lines, width, wide)
        return wide

    def decimals(self, fields: Ints, point: str = ".", missing: tuple[str, ...] = ()) -> tuple[Ints, npt.NDArray[np.int8]]:
        """(millionths, status) of the decimals in ``fields`` (-1: no such field). Words of ``missing`` count as empty."""
        encoded = [word.encode() for word in missing]
        words = np.frombuffer(b"".join(encoded) or b"\0", np.uint8)
        ends = np.cumsum([len(word) for word in encoded]).astype(np.int64)
        values, status = np.zeros(len(fields), np.int64), np.zeros(len(fields), np.int8)
        _decimals(self.data, self.starts, fields, ord(point), words, ends, values, status)
        return values, status

    def stamps(self, fields: Ints, program: Ints) -> tuple[Ints, Ints, npt.NDArray[np.int8]]:
        """(local seconds, offset or NAIVE, status) of the times in ``fields`` (parts × rows)."""
        rows = fields.shape[1]
        seconds, offsets, status = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int8)
        _stamps(self.data, self.starts, fields, program, seconds, offsets, status)
        return seconds, offsets, status

    def keys(self, fields: Ints) -> tuple[Ints, list[tuple[str, ...]]]:
        """(code per row, distinct keys) of the texts in ``fields`` (parts × rows, all present); codes count in order of appearance."""
        codes, keys = self._encoded(fields, True)
        return codes, [_split_key(key, len(fields)) for key in keys.to_pylist()]

    def texts(self, fields: Ints) -> tuple[Ints, pa.StringArray]:
        """(code per row, distinct texts) of one field per row, all present. Bytes that are not UTF-8 become U+FFFD."""
        codes, keys = self._encoded(fields[np.newaxis, :], False)
        try:
            found = keys.cast(pa.string())
        except pa.ArrowInvalid:
            found = strings([raw.decode("utf-8", "replace") for raw in keys.to_pylist()])
        return codes, pc.replace_substring(found, '""', '"')

    def _encoded(self, fields: Ints, headed: bool) -> tuple[Ints, pa.BinaryArray]:
        _, rows = fields.shape
        runs = np.empty(rows, np.int64)
        total = _runs(self.data, self.starts, fields, runs)
        if total >= 2**31 - 8:
            raise ValueError("identifiers take more than two gigabytes")
        first = np.flatnonzero(np.diff(runs, prepend=-1))
        out, bounds = np.empty(max(total, 1), np.uint8), np.empty(len(first) + 1, np.int32)
        _gather(self.data, self.starts, fields, first, out, bounds, headed)
        texts = pa.BinaryArray.from_buffers(pa.binary(), len(first), [None, pa.py_buffer(bounds), pa.py_buffer(out)])
        encoded = texts.dictionary_encode()
        return numbers(encoded.indices).astype(np.int64)[runs], encoded.dictionary


def _split_key(key: bytes, parts: int) -> tuple[str, ...]:
    found: list[str] = []
    at = 0
    for _ in range(parts):
        length = int.from_bytes(key[at : at + 4], "little")
        found.append(key[at + 4 : at + 4 + length].replace(b'""', b'"').decode("utf-8", "replace"))
        at += 4 + length
    return tuple(found)


def split(data: bytes, delimiter: str, file: str) -> Table:
    """Delimited text as :class:`Table`. Raises DecodeError on a quote left open and on lines or tables too large to be meant."""
    raw = np.frombuffer(data, np.uint8)
    nothing: Any = np.zeros(0, np.int32)
    fields, lines, longest, opened = _scan(raw, ord(delimiter), nothing, nothing, nothing, False)
    if opened:
        raise DecodeError(file, opened, "a quote opened here is never closed")
    if longest > MAX_LINE:
        raise DecodeError(file, 1, f"a line of {longest} bytes; {MAX_LINE} are allowed")
    if fields > _MAX_FIELDS:
        raise DecodeError(file, 1, f"{fields} fields; {_MAX_FIELDS} are allowed")
    starts, firsts = np.empty(fields + 1, np.int32), np.empty(lines + 1, np.int32)
    numbers = np.empty(lines, np.int32)
    _scan(raw, ord(delimiter), starts, firsts, numbers, True)
    return Table(raw, starts, firsts, numbers, delimiter)


def column(cells: list[Any]) -> Table:
    """Texts as a table of one field each: None is an empty field, what is no text or none that a number or time can be is ``?``."""
    plain = [cell if type(cell) is str else "" if cell is None else "?" for cell in cells]
    joined = "\n".join(plain)
    if '"' in joined or "\r" in joined or joined.count("\n") != len(plain) - 1 or len(joined) > MAX_LINE:
        plain = [cell if len(cell) <= 2 * _LONGEST and not _BREAKING & set(cell) else "?" for cell in plain]
        joined = "\n".join(plain)
    return split((joined + "\n").encode("utf-8", "replace") if cells else b"", "\n", "")


_BREAKING: Final = frozenset('"\r\n')
