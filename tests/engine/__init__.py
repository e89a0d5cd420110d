"""The engine over memory: every promise of the line, with a clock that only tests move."""
