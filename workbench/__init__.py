"""The workbench people touch: analyses, pages, player, reports and the command line."""

__version__ = "0.1.0"
