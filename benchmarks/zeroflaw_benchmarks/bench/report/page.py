"""A bench report as one HTML page that needs nothing but itself, and as Markdown for the docs."""

from __future__ import annotations

import html
from typing import Final

from zeroflaw_benchmarks.bench.report.figures import plots_of
from zeroflaw_benchmarks.bench.report.report import BenchReport
from zeroflaw_benchmarks.bench.report.tables import tables_of
from zeroflaw_benchmarks.bench.report.text_table import TextTable

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


def report_markdown(report: BenchReport, extra: tuple[TextTable, ...] = ()) -> str:
    """Write every table of the report, under the command that printed it."""
    parts = [f"# {report.subject.bundle} on {report.subject.backend}", ""]
    parts += [f"{report.created}, printed by", "", "```", report.command, "```", ""]
    parts += [f"**{_markdown(note)}**\n" for note in report.notes]
    for table in (*tables_of(report), *extra):
        parts += [f"## {_markdown(table.title)}", "", *_markdown_rows(table), ""]
        parts += [_markdown(table.note), ""] if table.note else []
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


def _markdown_rows(table: TextTable) -> list[str]:
    left = len(table.heads) == 2
    aligned = "|".join("---" if left or not i else "---:" for i in range(len(table.heads)))
    rows = [table.heads, *table.rows]
    lines = [f"| {' | '.join(map(_markdown, row))} |" for row in rows]
    return [lines[0], f"|{aligned}|", *lines[1:]]


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
