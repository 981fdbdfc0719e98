"""The report of `zeroflaw bench`: its schema, tables, plots, page, and comparison."""
