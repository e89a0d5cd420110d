"""Benchmarks: each figure in the README names the command here that reproduces it."""
