"""The dead-letter topic: reading it, choosing letters, replaying them, rebuilding the index from it."""
