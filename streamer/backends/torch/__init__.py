"""A Hugging Face model on a device of this machine. Importing it loads torch and transformers."""

import os

from streamer.errors import StartupError

# OpenMP reads it when torch is loaded. By default its threads spin between two operations, and where others
# want the cores (Kafka's client threads, the engine) each wait burns a time slice: on two busy cores a short
# text took 600 ms instead of 7.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import torch as _torch
    import transformers as _transformers
except ImportError as error:
    raise StartupError(
        f"model.backend: torch needs torch and transformers ({error}); pip install 'streamer[torch]'"
    ) from error

from streamer.backends.torch.backend import TorchBackend

__all__ = ["TorchBackend"]

del _torch, _transformers
