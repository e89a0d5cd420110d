"""Kafka texts in, transformer scores out, nothing lost: see `streamer.engine` for the line."""

__version__ = "0.1.0"
