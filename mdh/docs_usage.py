"""The pages of the usage rules: from docstrings, settings models and examples. ``python -m mdh.docs_usage FOLDER`` writes them."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from schemas.topology import usage as model
from schemas.topology.reference import rule_table
from streams.determinants.usage import checks, demand, energy, formulas, reactive, readings

CODE: Final[dict[str, Any]] = {
    "alignment-and-delay": checks.alignment_and_delay, "installed-device-check": checks.installed_device_check,
    "interval-data": energy.interval_data, "tou-mapped-usage": energy.tou_mapped_usage, "scalar-details": readings.scalar_details,
    "daily-scalar": readings.daily_scalar, "subtractive-interval-details": readings.subtractive_interval_details,
    "interval-tier": energy.interval_tier, "block-demand": demand.block_demand, "rolling-demand": demand.rolling_demand,
    "coincident-peak": demand.coincident_peak, "kva-demand": demand.kva_demand, "power-factor": reactive.power_factor,
    "load-factor": demand.load_factor, "excess-kvarh": reactive.excess_kvarh, "billing-demand": demand.billing_demand,
    "net-interval": energy.net_interval, "net-period": energy.net_period, "profile-accumulation": energy.profile_accumulation,
    "gas-energy": energy.gas_energy, "unit-conversion": energy.unit_conversion, "math": formulas.evaluate,
    "round-and-adjust": checks.round_and_adjust, "usage-high-low": checks.usage_high_low,
}  # fmt: skip
EXAMPLES: Final = Path(__file__).resolve().parent.parent / "tests" / "usage"
_HEADS: Final = ("Formula", "Language", "Edge cases", "Source")


def models() -> dict[str, type[model.UsageRule]]:
    """The settings of the rules, by id, in their order."""
    return {kind.model_fields["id"].default: kind for kind in get_args(get_args(model.UsageRules)[0])}


def documents() -> dict[str, str]:
    """File name → content of everything in the folder."""
    pages = {f"{name}.md": page_of(name, settings) for name, settings in models().items()}
    lines = [
        "# Usage rules",
        "",
        "Made by `make docs` from the rules' docstrings, settings and examples. How they work together: [../usage.md](../usage.md).",
        "",
        "| rule | what it makes or finds |",
        "|---|---|",
    ]
    lines += [f"| [{name}]({name}.md) | {_plain(settings.__doc__ or '')} |" for name, settings in models().items()]
    return {"README.md": "\n".join(lines) + "\n", **pages}


def page_of(name: str, settings: type[model.UsageRule]) -> str:
    """The page of one rule."""
    code = CODE[name]
    lines = [f"# {name}", "", _plain(settings.__doc__ or ""), ""]
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(code.__doc__ or "")):
        text = _plain(paragraph)
        head = next((head for head in _HEADS if text.startswith(f"{head}:")), "")
        lines += [f"**{head}:**{text[len(head) + 1 :]}" if head else text, ""]
    module = code.__module__.replace(".", "/")
    lines += [f"**Code:** [{module}.py](../../{module}.py)", "", "## Settings", "", *rule_table(settings, model.UsageRule), ""]
    lines += example_of(EXAMPLES / f"{name}.yaml")
    return "\n".join(lines) + "\n"


def example_of(path: Path) -> list[str]:
    """The worked example of a rule, which is also a test: what is given as it is written, what comes of it as a table."""
    written = path.read_text()
    example = yaml.safe_load(written)
    given = written.partition("\nthen:\n")[0].partition("\nrules:")[2]
    lines = ["## Worked example", "", f"{example['about']} ([tests/usage](../../tests/usage/{path.name}))", ""]
    lines += ["```yaml", "rules:", *given.strip("\n").splitlines(), "```", "", "| period from | status | quantity | |", "|---|---|---|---|"]
    for told in example["then"]["usage"]:
        status = f"{told['status']}: {told['reason']}" if "reason" in told else told["status"]
        for name, said in told.get("quantities", {"": ""}).items():
            lines.append(f"| {told['from']} | {status} | {name} | {said} |")
    if "exceptions" in example["then"]:
        lines += ["", "Exceptions:", "", *(f"- {said}" for said in example["then"]["exceptions"])]
    return lines


def _plain(text: str) -> str:
    return " ".join(inspect.cleandoc(text).replace("``\\ ", "`").replace("``", "`").split())


def main() -> None:
    """Writes the folder anew; pages of rules that are no more go."""
    folder, found = Path(sys.argv[1]), documents()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in found:
            old.unlink()
    for name, text in found.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
