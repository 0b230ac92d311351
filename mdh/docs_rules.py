"""The pages of the VEE rules: from docstrings, settings models and scenarios. ``python -m mdh.docs_rules FOLDER`` writes them."""

from __future__ import annotations

import csv
import importlib
import inspect
import re
import sys
from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from mdh.rule_pictures import lanes, picture
from schemas import rules
from schemas.topology.base import Section
from schemas.topology.insights import InsightsSettings
from schemas.topology.loader import load_topology
from schemas.topology.reference import rule_table
from schemas.topology.vee import (
    Entry,
    ExceptionHandler,
    ExecuteGroup,
    GroupMatrix,
    Rule,
    RuleSettings,
    SuccessfulTermination,
    WidespreadOutage,
)
from streams.vee.rules import ESTIMATIONS, VALIDATIONS

SCENARIOS: Final = Path(__file__).resolve().parent.parent / "tests" / "scenarios"
ROWS: Final = 12  # rows of a table that are shown
AROUND: Final = 2  # rows shown around those that a rule concerns
Rows = list[dict[str, str]]

# Where rules are decided that are no function over days, or that begin before there are any
_ELSEWHERE: Final = {
    "unit-of-measure": "streams.vee.admission:Admission._convert",
    "interval-size": "streams.vee.admission:Admission._check_size",
    "unknown-device": "streams.vee.admission:Admission._channels",
    "future-read": "streams.vee.admission:Admission._check_future",
    "duplicate-imd": "streams.vee.deliveries:duplicates",
    "final-measurement-replacement": "streams.vee.merging:Replacement",
    "sibling-imd": "streams.vee.siblings:Siblings",
    "scalar-proration": "streams.vee.readings:_prorated",
    "scalar-estimation": "streams.vee.readings:_from_history",
    "anomaly": "streams.insights.kernel",
}
_ALWAYS: Final = {"unknown-device": "terminate", "future-read": "terminate", "anomaly": "info"}  # in no group
_NO_SETTINGS: Final = {"unknown-device": "vee.admit", "future-read": "vee.future_tolerance"}

# Worked examples that say most, where the shortest one does not
_EXAMPLES: Final = {
    "interval-adjustment-from-scalar": "given_an_estimate_between_two_readings",
    "sum-check": "given_intervals_that_miss_energy",
    "scalar-proration": "given_a_missing_reading_between_two",
    "scalar-estimation": "given_a_missing_reading_with_none_behind",
    "like-day-average": "given_four_hours_without_a_value",
    "interval-size": "given_half_hours_for_an_hourly_channel",
    "anomaly": "given_a_value_that_stands_still",
}

# Outages of one device and of many: picture and case
_OUTAGES: Final = {"outage": "given_an_outage_and_its_end", "widespread-outage": "given_a_widespread_outage"}

# Entries of groups that are no rules: their settings, and a rule that speaks in their scenario
_STEERING: Final[dict[str, tuple[type[Entry], str]]] = {
    "execute-group": (ExecuteGroup, "interval-spike"),
    "group-matrix": (GroupMatrix, "interval-spike"),
    "exception-handler": (ExceptionHandler, "interval-spike"),
    "successful-termination": (SuccessfulTermination, "negative-consumption"),
}
_CASES: Final = {
    "execute-group": "given_a_group_inside_a_group_inside_a_group",
    "group-matrix": "given_a_matrix_by_channel",
    "exception-handler": "given_two_exceptions_that_end_validation",
    "successful-termination": "given_only_exceptions_that_may_pass",
}


@dataclass(frozen=True)
class Page:
    """What is known of one rule."""

    id: str
    code: Any
    settings: type[RuleSettings] | type[InsightsSettings] | None

    @property
    def summary(self) -> str:
        """The rule in one sentence."""
        if self.settings is not None and self.settings.__doc__:
            return _plain(self.settings.__doc__)
        return _plain(self.code.__doc__ or "").split(". ")[0].rstrip(".") + "."

    @property
    def text(self) -> list[str]:
        """The paragraphs of its docstring, the source left out."""
        parts = [
            "\n".join(f"* {_plain(item)}" for item in part.strip()[2:].split("\n* ")) if part.strip().startswith("* ") else _plain(part)
            for part in re.split(r"\n\s*\n", self._doc()[0])
        ]
        return [part for part in parts if part != self.summary]

    @property
    def source(self) -> str:
        """Where it comes from; empty where the docstring does not say."""
        return _plain(self._doc()[1])

    def _doc(self) -> tuple[str, str]:
        text, *source = re.split(r"Sources?:", inspect.cleandoc(self.code.__doc__ or ""), maxsplit=1)
        return text.strip(), "".join(source).strip()


@cache
def models() -> dict[str, type[RuleSettings]]:
    """The settings of the rules of groups, by rule id."""
    found: dict[str, type[RuleSettings]] = {}
    for model in get_args(get_args(Rule)[0]):
        name = model.model_fields["id"].default
        if name in rules.RULES:
            found[name] = model
    return found


def registered() -> list[Page]:
    """The rules that there are, in the order of :data:`schemas.rules.RULES`."""
    pages = []
    for name in rules.RULES:
        settings = InsightsSettings if name == "anomaly" else models().get(name)
        if settings is not None or name in rules.ADMISSIONS:
            pages.append(Page(name, _code(name), settings))
    return pages


def _code(rule: str) -> Any:
    """The function or class that decides a rule."""
    known: dict[str, Any] = {**VALIDATIONS, **ESTIMATIONS}
    if rule not in _ELSEWHERE:
        return known[rule]
    module, _, path = _ELSEWHERE[rule].partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split(".") if path else ():
        found = getattr(found, name)
    return found


def cases(rule: str) -> list[Path]:
    """The scenario folders of a rule."""
    return sorted(path.parent for path in (SCENARIOS / rule).glob("*/then"))


def documents() -> dict[str, str]:
    """File name → content of everything in the folder."""
    found = {"README.md": index()}
    for page in registered():
        example = worked_example(page.id)
        drawn = picture(page.id, *read(example)) if example else None
        if drawn is not None:
            found[f"{page.id}.svg"] = drawn
        found[f"{page.id}.md"] = page_of(page, example, drawn=drawn is not None)
    for entry, (_, spoken) in _STEERING.items():
        drawn = picture(spoken, *read(_steered(entry)))
        if drawn is not None:
            found[f"{entry}.svg"] = drawn
    for name, case in _OUTAGES.items():
        found[f"{name}.svg"] = lanes(name, *read(SCENARIOS / "events" / case))
    return found | {"groups.md": groups_page(found), "outages.md": outages_page()}


def outages_page() -> str:
    """What outages of one device, and of many, make of intervals, each with a worked example."""
    lines = ["# Outages", "", "Made by `make docs`. How events come in, and what they change: [../vee.md](../vee.md#device-events).", ""]
    lines += ["## Of one device", "", *_example("outage-zero", SCENARIOS / "events" / _OUTAGES["outage"], drawn=True)]
    lines += ["## Of many devices", "", _plain(WidespreadOutage.__doc__ or ""), "", *rule_table(WidespreadOutage, Section), ""]
    lines += _example("missing-quantity", SCENARIOS / "events" / _OUTAGES["widespread-outage"], drawn=True)
    text = "\n".join(lines).replace("## Worked example", "### Worked example").replace("#### ", "### ")
    for rule, name in (("outage-zero", "outage"), ("missing-quantity", "widespread-outage")):
        text = text.replace(f"({rule}.svg)", f"({name}.svg)").replace(f"scenarios/{rule}/", "scenarios/events/")
        text = text.replace(f"The load of the example; what {rule} concerns is marked", "The values of each device in time")
    more = ["## More cases", "", *(f"- [{_title(case)}](../../tests/scenarios/events/{case.name})" for case in cases("events"))]
    return text.rstrip() + "\n\n" + "\n".join(more) + "\n"


def groups_page(drawn: Container[str]) -> str:
    """The entries of groups that steer which rules run, each with settings and a worked example."""
    lines = ["# Entries that steer", "", "Made by `make docs`. What groups are and which one runs: [../vee.md](../vee.md#groups).", ""]
    for entry, (settings, spoken) in _STEERING.items():
        case = _steered(entry)
        lines += [f"## {entry}", "", _plain(settings.__doc__ or ""), "", *rule_table(settings, Entry), ""]
        example = _example(spoken, case, drawn=f"{entry}.svg" in drawn)
        text = "\n".join(example).replace(f"({spoken}.svg)", f"({entry}.svg)").replace(f"scenarios/{spoken}/", "scenarios/groups/")
        lines += text.replace("## Worked example", "### Worked example").split("\n")
    return "\n".join(lines).rstrip() + "\n"


def _steered(entry: str) -> Path:
    """The scenario of an entry that steers."""
    return SCENARIOS / "groups" / _CASES[entry]


# --- pages ---------------------------------------------------------------------------------------------------------------------


def index() -> str:
    """All rules with what they find or do."""
    lines = [
        "# Rules",
        "",
        "Made by `make docs` from the rules' docstrings, their settings and the scenarios under `tests/scenarios`. How they work together:",
        "[../vee.md](../vee.md), and which of them run: [groups.md](groups.md).",
        "*Here*: the severity in the group of initial load that topology.yaml comes with; – where it has none.",
    ]
    placed: dict[str, str] = {rule.id: getattr(rule, "severity", "") for rule in load_topology(None).vee.group().rules}
    for title, names in (("Validations", rules.VALIDATIONS), ("Estimations", rules.ESTIMATIONS), ("Admission", rules.ADMISSIONS)):
        lines += ["", f"## {title}", "", "| rule | what it finds or does | here |", "|---|---|---|"]
        for page in registered():
            if page.id in names:
                here = placed.get(page.id) or {"unknown-device": "terminate", "future-read": "terminate", "anomaly": "info"}.get(
                    page.id, "–"
                )
                lines.append(f"| [{page.id}]({page.id}.md) | {_cell(page.summary)} | {here} |")
    return "\n".join(lines) + "\n"


def page_of(page: Page, example: Path | None, *, drawn: bool) -> str:
    """The page of one rule."""
    lines = [f"# {page.id}", "", page.summary, "", *_spaced(page.text)]
    if page.source:
        lines += [f"**Source:** {page.source}", ""]
    module = getattr(page.code, "__module__", page.code.__name__).replace(".", "/")
    lines += [f"**Code:** [{module}.py](../../{module}.py)", ""]
    lines += [f'**Metric:** `mdh_exceptions_total{{rule="{page.id}"}}`, by severity ([metrics.md](../metrics.md)).', ""]
    lines += ["## Settings", ""]
    if page.settings is None:
        lines += [f"None of its own; see `{_NO_SETTINGS[page.id]}` in [topology-reference.md](../topology-reference.md).", ""]
    else:
        lines += [*rule_table(page.settings, RuleSettings), ""]
    if example is not None:
        lines += _example(page.id, example, drawn=drawn)
    others = [case for case in cases(page.id) if case != example]
    if others:
        lines += ["## More cases", ""]
        lines += [f"- [{_title(case)}](../../tests/scenarios/{page.id}/{case.name})" for case in others] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _example(rule: str, case: Path, *, drawn: bool) -> list[str]:
    given, when, exceptions, finals = read(case)
    lines = ["## Worked example", "", f"[{_title(case)}](../../tests/scenarios/{rule}/{case.name})", ""]
    if drawn:
        lines += [f"![The load of the example; what {rule} concerns is marked]({rule}.svg)", ""]
    lines += ["**Given**", ""]
    lines += ["```yaml", yaml.safe_dump(given, sort_keys=False).strip(), "```", ""] if given else ["The rules as they come.", ""]
    master = case / "master.ndjson"
    if master.exists():
        lines += ["and master data", "", "```json", *master.read_text().strip().splitlines()[:ROWS], "```", ""]
    lines += ["**When**", ""]
    for file in sorted((case / "when").iterdir()):
        if file.suffix == ".tick":
            lines += [f"it is {file.read_text().strip()}", ""]
        elif file.suffix != ".csv":
            lines += ["```json", *file.read_text().strip().splitlines()[: 3 * ROWS], "```", ""]
    for name, rows in when.items():
        if len(when) > 1:
            lines += [f"{name}:", ""]
        lines += [*_table(rows, _near(rows, exceptions, finals, rule)), ""]
    lines += ["**Then**", ""]
    lines += [*_table(exceptions, set(range(len(exceptions)))), ""] if exceptions else ["No exception stays open.", ""]
    if not (case / "then" / "finals.csv").exists():
        lines += ["All values are final as they were read.", ""]
    elif finals:
        lines += [*_table(finals, _concerned(finals, exceptions, rule)), ""]
    else:
        lines += ["Nothing becomes final.", ""]
    return lines


# --- scenarios -----------------------------------------------------------------------------------------------------------------


def read(case: Path) -> tuple[dict[str, Any], dict[str, Rows], Rows, Rows]:
    """What is given, the files that arrive, the exceptions left open, and the finals; as they were read where no finals are told."""
    given = yaml.safe_load((case / "given.yaml").read_text()) if (case / "given.yaml").exists() else {}
    when = {file.stem: _lines(file) for file in sorted((case / "when").iterdir()) if file.suffix == ".csv"}
    told = case / "then" / "finals.csv"
    finals = _lines(told) if told.exists() else [row for rows in when.values() for row in rows]
    return given or {}, when, _lines(case / "then" / "exceptions.csv"), finals


def worked_example(rule: str) -> Path | None:
    """The scenario that was chosen, else that in which the rule has something to say with the fewest values; None where there is none."""

    def weight(case: Path) -> tuple[bool, int, str]:
        _, when, exceptions, finals = read(case)
        speaks = any(row["rule"] == rule for row in exceptions) or any(row.get("method") == rule for row in finals)
        size = sum(map(len, when.values()))
        return not speaks, size if size > 3 else size + 1000, case.name

    chosen = _EXAMPLES.get(rule)
    return SCENARIOS / rule / chosen if chosen else min(cases(rule), key=weight, default=None)


def _lines(path: Path) -> Rows:
    with path.open(newline="") as file:
        return [
            {(k or "").replace("#", "remark"): v or "" for k, v in row.items() if isinstance(v, str | None)} for row in csv.DictReader(file)
        ]


def _concerned(rows: Rows, exceptions: Rows, rule: str) -> set[int]:
    """Rows that the rule made or found."""
    spans = [(e["device"], e["channel"], e["start"], e["end"]) for e in exceptions if e["rule"] == rule]
    found = {
        k for k, row in enumerate(rows)
        if any(row.get("device") == d and row.get("channel") == c and a <= row.get("start", row.get("at", "")) < b for d, c, a, b in spans)
    }  # fmt: skip
    suspect = {k for k in found if rows[k].get("condition", "").startswith("45")}
    return (suspect or found) | {k for k, row in enumerate(rows) if row.get("method") == rule}


def _near(rows: Rows, exceptions: Rows, finals: Rows, rule: str) -> set[int]:
    """Rows of an input at the times that the rule concerns."""
    times = {(finals[k]["device"], finals[k]["start"]) for k in _concerned(finals, exceptions, rule)}
    return {k for k, row in enumerate(rows) if (row.get("device"), row.get("start", row.get("at"))) in times} | _concerned(
        rows, exceptions, rule
    )


def _table(rows: Rows, marked: set[int]) -> list[str]:
    """Rows as a table; of many only those around the marked ones, and how many are left out."""
    names = [name for name in (rows[0] if rows else {}) if name and any(row.get(name) for row in rows)]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    chosen = list(range(len(rows)))
    if len(rows) > ROWS:
        first = sorted(marked)[:ROWS] or [0]
        chosen = sorted({near for k in first for near in range(k - AROUND, k + AROUND + 1) if 0 <= near < len(rows)} | {0, len(rows) - 1})
    before = -1
    for k in chosen:
        if k > before + 1:
            lines.append(f"| … {k - before - 1} more |{' |' * (len(names) - 1)}")
        lines.append(f"| {' | '.join(_cell(rows[k].get(name, '')) for name in names)} |")
        before = k
    return lines


# --- words ---------------------------------------------------------------------------------------------------------------------


def _title(case: Path) -> str:
    return case.name.replace("_", " ").capitalize()


def _plain(text: str) -> str:
    """A docstring as Markdown on one line."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", inspect.cleandoc(text))
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _spaced(paragraphs: list[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (paragraph, "")]


def main() -> None:
    """Writes the folder anew; pages of rules that are no more go."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    found = documents()
    for old in folder.iterdir():
        if old.suffix in (".md", ".svg") and old.name not in found:
            old.unlink()
    for name, text in found.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
