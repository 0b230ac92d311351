"""A statement of an account as CSV or PDF."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Final

from fpdf import FPDF
from fpdf.enums import TableBordersLayout

from connectors.prepaid.questions import local
from connectors.prepaid.texts import Texts

COLUMNS: Final = ("at", "kind", "component", "day", "amount", "balance", "reference", "reason", "provisional", "id")
_RISKY: Final = ("=", "+", "-", "@", "\t", "\r")


def as_csv(statement: Mapping[str, Any]) -> bytes:
    """A line per posting, amounts signed as they change the balance; UTF-8 with a mark so that spreadsheets see it.

    Texts from outside that a spreadsheet would take for a formula are made harmless by a quote in front.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    zone = statement["account"]["zone"]
    for row in statement["postings"]:
        texts = {name: _harmless(str(row[name])) for name in ("kind", "component", "day", "reference", "reason", "id")}
        shown = {**texts, "at": local(row["at"], zone).isoformat(), "amount": row["change"], "balance": row["balance"],
                 "provisional": "yes" if row["provisional"] else "no"}  # fmt: skip
        writer.writerow([shown[name] for name in COLUMNS])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_RISKY) else text


def as_pdf(statement: Mapping[str, Any], texts: Texts, title: str) -> bytes:
    """One or more A4 pages: who, when, opening and closing balance, totals by kind, every posting."""
    about = statement["account"]
    pdf = _Page(title, texts)
    pdf.set_title(texts("statement.title"))
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 15)
    pdf.cell(0, 9, pdf.safe(texts("statement.title")), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", "", 10)
    span = texts("statement.span", first=texts.date(statement["from"]), last=texts.date(statement["to"]))
    pdf.cell(0, 6, pdf.safe(f"{texts('account')} {about['account']}   {span}"), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(3)
    currency = about["currency"]
    lines = [("statement.opening", statement["opening"])]
    lines += [(f"kind.{kind}", total) for kind, total in statement["totals"].items()]
    lines.append(("statement.closing", statement["closing"]))
    with pdf.table(col_widths=(120, 60), text_align=("LEFT", "RIGHT"), borders_layout=TableBordersLayout.HORIZONTAL_LINES,
                   first_row_as_headings=False, line_height=6) as table:  # fmt: skip
        for name, amount in lines:
            table.row([pdf.safe(texts(name)), f"{amount} {currency}"])
    pdf.ln(4)
    _postings(pdf, statement, texts)
    return bytes(pdf.output())


def _postings(pdf: _Page, statement: Mapping[str, Any], texts: Texts) -> None:
    pdf.set_font("Helvetica", "", 8)
    heads = ("statement.at", "statement.what", "statement.day", "statement.amount", "statement.balance")
    with pdf.table(col_widths=(32, 74, 24, 25, 25), text_align=("LEFT", "LEFT", "LEFT", "RIGHT", "RIGHT"), line_height=5,
                   borders_layout=TableBordersLayout.HORIZONTAL_LINES) as table:  # fmt: skip
        table.row([pdf.safe(texts(head)) for head in heads])
        for row in statement["postings"]:
            at = local(row["at"], statement["account"]["zone"])
            what = texts(f"kind.{row['kind']}") + (f" ({row['reference']})" if row["reference"] else "")
            what += f" - {texts('provisional')}" if row["provisional"] else ""
            table.row([at.strftime("%Y-%m-%d %H:%M"), pdf.safe(what), row["day"], row["change"], row["balance"]])


class _Page(FPDF):
    """A4 with the utility's name above and page numbers below."""

    def __init__(self, title: str, texts: Texts) -> None:
        super().__init__(format="A4")
        self._above, self._texts = title, texts
        self.set_margins(15, 15)
        self.set_auto_page_break(True, 18)
        self.set_lang(texts.language)

    @staticmethod
    def safe(text: str) -> str:
        """What the built-in fonts can show."""
        return text.encode("cp1252", "replace").decode("cp1252")

    def header(self) -> None:
        """The name above."""
        self.set_font("Helvetica", "", 9)
        self.cell(0, 8, self.safe(self._above), align="R", new_x="LMARGIN", new_y="NEXT")

    def footer(self) -> None:
        """The number of the page."""
        self.set_y(-14)
        self.set_font("Helvetica", "", 8)
        self.cell(0, 6, f"{self.page_no()}/{{nb}}", align="C")
