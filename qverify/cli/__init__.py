"""The command line: options in, tables out."""

from qverify.cli.app import main

__all__ = ["main"]
