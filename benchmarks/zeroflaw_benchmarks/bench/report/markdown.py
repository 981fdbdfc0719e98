"""A bench report as Markdown, to be kept beside the docs."""

from __future__ import annotations

from zeroflaw_benchmarks.bench.report.report import BenchReport
from zeroflaw_benchmarks.bench.report.tables import TextTable, tables_of


def report_markdown(report: BenchReport, extra: tuple[TextTable, ...] = ()) -> str:
    """Write every table of the report, under the command that printed it."""
    parts = [f"# {report.subject.bundle} on {report.subject.backend}", ""]
    parts += [f"{report.created}, printed by", "", "```", report.command, "```", ""]
    parts += [f"**{_text(note)}**\n" for note in report.notes]
    for table in (*tables_of(report), *extra):
        parts += [f"## {_text(table.title)}", "", *_rows(table), ""]
        parts += [_text(table.note), ""] if table.note else []
    return "\n".join(parts)


def _rows(table: TextTable) -> list[str]:
    left = len(table.heads) == 2
    aligned = "|".join("---" if left or not i else "---:" for i in range(len(table.heads)))
    rows = [table.heads, *table.rows]
    lines = [f"| {' | '.join(map(_text, row))} |" for row in rows]
    return [lines[0], f"|{aligned}|", *lines[1:]]


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
