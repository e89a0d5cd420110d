"""The tests of streamer: `make test` runs them all."""
