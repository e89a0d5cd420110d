"""Tests of one module each: no server, no device."""
