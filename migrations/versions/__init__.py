"""Revisions: each a Python file with a list of plain SQL statements."""
