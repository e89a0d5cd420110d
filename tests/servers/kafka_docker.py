"""Apache Kafka in a container, where a Docker engine answers."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any

from tests.servers.kafka_config import VERSION, Detour, Probe, broker_properties
from tests.servers.kafka_doors import Doors
from tests.servers.process import ServerError, free_port, last_words, make_folder, remove_folder

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_IMAGE = f"apache/kafka:{VERSION}"


class DockerKafka:
    """The Apache Kafka image, configured as on Java; testcontainers' reaper ends it if we cannot."""

    breakable = True

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer

        port = free_port()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self.origin = f"the container {_IMAGE}"
        container = DockerContainer(_IMAGE).with_env("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m")
        # One port number inside and out, so that the advertised address is right for the broker itself too.
        # Published by hand: with_bind_ports would listen on every interface.
        ports: dict[str, Any] = container.ports
        self.detour = Detour(free_port(), free_port())
        self._folder = make_folder("kafka")
        self.doors = Doors(self._folder)
        container = container.with_env("KAFKA_OPTS", " ".join(self.doors.java_options))
        # One path inside and out, too. The image's user is another than ours: it has to be let in.
        self._folder.chmod(0o755)
        container = container.with_volume_mapping(str(self._folder), str(self._folder), "ro")
        for inside in (port, self.detour.port, *self.doors.ports):
            ports[f"{inside}/tcp"] = ("127.0.0.1", inside)
        for key, value in environment(port, self.detour, self.doors).items():
            container = container.with_env(key, value)
        self._container: DockerContainer = container.start()
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """SIGKILL: a crash. What was acknowledged is kept."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Start again on the same port and data and wait until it answers; one that runs is ended first."""
        self._container.get_wrapped_container().restart(timeout=15)
        self._wait()

    def suspend(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Thaw it."""
        self._container.get_wrapped_container().unpause()

    def recover(self) -> None:
        """Make it whole after a test that broke it: thawed, running, answering."""
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status == "paused":
            container.unpause()
        elif container.status != "running":
            container.start()
        self._wait()

    def stop(self) -> None:
        """End it for good and remove its data."""
        self._container.stop()
        remove_folder(self._folder)

    def _wait(self) -> None:
        if not Probe(self.bootstrap_servers).wait(90):
            out, err = self._container.get_logs()
            last = last_words((out + err).decode("utf-8", "replace"))
            raise ServerError(f"{self.origin} did not answer within 90 s; its last words:\n{last}")


def environment(port: int, detour: Detour, doors: Doors) -> dict[str, str]:
    """The broker's properties as the image takes them: `log.dirs` is KAFKA_LOG_DIRS, a dash is three `_`."""
    properties = broker_properties("0.0.0.0", port, port + 1, "/tmp/streamer-tests", detour, doors=doors)
    return {
        f"KAFKA_{key.replace('-', '___').replace('.', '_').upper()}": value
        for key, value in properties.items()
    }


def docker_answers() -> bool:
    """Whether an engine, and not only its client, is there; asked for two seconds at most."""
    with warnings.catch_warnings():
        # A client that finds no engine leaves its socket open, and pytest would report that as an error.
        warnings.simplefilter("ignore", ResourceWarning)
        answer = _ping()
        gc.collect()
    return answer


def _ping() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=2)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()
