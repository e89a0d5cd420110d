"""A cluster for the run, and Helm in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helm.cluster import Cluster
from tests.helm.tools import tools


@pytest.fixture(scope="session", autouse=True)
def built(announce: Callable[[str], None]) -> None:
    """Helm and Kubernetes, before the first test's time-out runs."""
    announce("building Helm and Kubernetes, unless they are in .cache (the first time, minutes)")
    tools()


@pytest.fixture(scope="session")
def cluster(announce: Callable[[str], None]) -> Iterator[Cluster]:
    """A real control plane with simulated nodes."""
    announce("starting Kubernetes")
    made = Cluster()
    yield made
    made.stop()
