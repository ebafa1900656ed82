"""The report of a run: one HTML file that opens without a network."""

from topomoe.report.write import check_kind, write_report

__all__ = ["check_kind", "write_report"]
