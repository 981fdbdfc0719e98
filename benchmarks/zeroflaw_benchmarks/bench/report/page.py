"""A bench report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import html
from typing import Final

from zeroflaw_benchmarks.bench.report.figures import plots_of
from zeroflaw_benchmarks.bench.report.report import BenchReport
from zeroflaw_benchmarks.bench.report.tables import TextTable, tables_of

_STYLE: Final = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;"
    "color:#222}table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .7em;"
    "text-align:right;border-bottom:1px solid #ddd;vertical-align:top}td:first-child,"
    "th:first-child{text-align:left}th{font-weight:600}.wide td{text-align:left}"
    "svg{max-width:100%;height:auto}p.note{color:#555}code{background:#f3f3f3;padding:.1em .3em}"
)


def report_page(report: BenchReport, extra: tuple[TextTable, ...] = ()) -> str:
    """Write the page: every table and every plot."""
    title = html.escape(f"zeroflaw bench: {report.subject.bundle} on {report.subject.backend}")
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f"<p>{html.escape(report.created)}: <code>{html.escape(report.command)}</code></p>",
    ]
    parts += [f"<p><b>{html.escape(note)}</b></p>" for note in report.notes]
    parts += [_table(table) for table in (*tables_of(report), *extra)]
    for name, svg in plots_of(report):
        parts.append(f"<h2>{html.escape(name)}</h2>\n{svg}")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _table(table: TextTable) -> str:
    wide = ' class="wide"' if len(table.heads) == 2 else ""
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in table.heads)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f"<h2>{html.escape(table.title)}</h2>\n<table{wide}><tr>{heads}</tr>\n{rows}</table>{note}"
    )
