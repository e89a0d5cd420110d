"""Apache Kafka as a plain Java process, its jars fetched once by Maven."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.servers.kafka_config import VERSION, Detour, Probe, broker_properties
from tests.servers.kafka_doors import Doors
from tests.servers.process import (
    CACHE,
    ServerError,
    ServerProcess,
    free_port,
    make_folder,
    remove_folder,
    run,
)

_FILES = Path(__file__).parent / "jvm"
_CLUSTER_ID = "c3RyZWFtZXItdGVzdHMhIQ"  # any 16 bytes in Base64: these say "streamer-tests!!"


class JvmKafka:
    """A broker and controller in one Java process on loopback ports."""

    breakable = True

    def __init__(self) -> None:
        jars = fetch_jars()
        self._folder = make_folder("kafka")
        port = free_port()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self.origin = f"Apache Kafka {VERSION} on Java"
        self.detour = Detour(free_port(), free_port())
        self.doors = Doors(self._folder / "tls")
        data = str(self._folder / "data")
        properties = broker_properties("127.0.0.1", port, free_port(), data, self.detour, doors=self.doors)
        configuration = self._folder / "server.properties"
        configuration.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8")
        classpath = ["-cp", f"{jars}/*", f"-Dlog4j2.configurationFile={_FILES / 'log4j2.properties'}"]
        # 512 MB hold the tests and the benchmarks. On two cores the serial collector and the quick compiler
        # take least from them: half the start, and the broker passes on 200,000 records with no more work.
        quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *classpath]
        options = ["-Xms256m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError", *self.doors.java_options, *quick]
        name = f"Kafka (it needs Java 17 or newer) at {self.bootstrap_servers}"
        self.process = ServerProcess(
            name,
            [_java(), *options, "kafka.Kafka", str(configuration)],
            self._folder / "server.log",
        )
        storage = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(configuration)]
        try:
            run([_java(), *quick, *storage], 60, "formatting Kafka's storage")
            self._start()
        except ServerError:
            raise  # the message names the log, so the folder stays
        except BaseException:
            remove_folder(self._folder)
            raise

    def kill(self) -> None:
        """SIGKILL: a crash. What was acknowledged is kept."""
        self.process.kill()

    def restart(self) -> None:
        """Start again on the same port and data and wait until it answers; one that runs is ended first."""
        if self.process.running:
            self.process.terminate()
        self._start()

    def suspend(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self.process.suspend()

    def resume(self) -> None:
        """Thaw it."""
        self.process.resume()

    def recover(self) -> None:
        """Make it whole after a test that broke it: thawed, running, answering."""
        if not self.process.running:
            self._start()
            return
        self.process.resume()
        if not Probe(self.bootstrap_servers).wait(60):
            self.restart()

    def stop(self) -> None:
        """End it for good and remove its data; without ceremony, for nobody will read them."""
        self.process.kill()
        remove_folder(self._folder)

    def _start(self) -> None:
        self.process.start(Probe(self.bootstrap_servers).answers, timeout=60)


def missing_tools() -> list[str]:
    """The programs that `JvmKafka` needs and that are not there."""
    needed = {"java": _java()}
    if not _jars().is_dir():
        needed["mvn"] = "mvn"
    return [name for name, command in needed.items() if shutil.which(command) is None]


def fetch_jars() -> Path:
    """The folder with the broker's jars, filled by Maven the first time."""
    if _jars().is_dir():
        return _jars()
    _jars().parent.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="kafka-unfinished-", dir=CACHE))
    options = ["-DincludeScope=runtime", f"-DoutputDirectory={unfinished / 'lib'}"]
    try:
        run(
            ["mvn", "-q", "-B", "-f", str(_FILES / "pom.xml"), "dependency:copy-dependencies", *options],
            timeout=300,
            what=f"fetching Kafka {VERSION} with Maven",
        )
        try:
            unfinished.rename(_jars().parent)  # whole or not at all
        except OSError:
            if not _jars().is_dir():  # else another run was faster, and its jars are as good
                raise
    finally:
        if unfinished.exists():
            remove_folder(unfinished)
    return _jars()


def _jars() -> Path:
    return CACHE / f"kafka-{VERSION}" / "lib"


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"
