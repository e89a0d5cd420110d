"""Bringing delayed records back to the input topic: `streamer retry`, beside the workers."""
