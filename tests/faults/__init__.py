"""Faults that are injected, and the accounts that must balance afterwards: `table.py` has the list."""
