"""What a call of librdkafka raises, and calls that the engine's thread must not wait for."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from streamer.errors import FatalError

# librdkafka's Python side raises a fatal error out of whatever call serves callbacks: sometimes the error
# itself, which is no Exception, and `except Exception` lets it pass.
RAISED: Any = (KafkaException, KafkaError)


def cause(raised: Any) -> KafkaError:
    """The error in what was raised."""
    error: KafkaError = raised.args[0] if isinstance(raised, KafkaException) else raised
    return error


class Call:
    """A call of the producer on a thread of its own, and its answer.

    For calls that must not be made twice: each sends another request, and the answer to one fences what
    came of the other, or trips an assertion in librdkafka. And for such as may never return.
    """

    def __init__(self, method: Callable[..., None], *args: Any, clock: Callable[[], float]) -> None:
        self.name = method.__name__
        self._clock = clock
        self._made = clock()
        self._answer: SimpleQueue[BaseException | None] = SimpleQueue()
        Thread(target=self._make, args=(method, args), name=self.name, daemon=True).start()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return self._clock() - self._made

    @property
    def answered(self) -> bool:
        return not self._answer.empty()

    def error(self) -> KafkaError | None:
        """What came of it, once it is answered. Raises FatalError for what is not Kafka's: a defect."""
        raised: Any = self._answer.get()
        if raised is None:
            return None
        if isinstance(raised, RAISED):
            return cause(raised)
        raise FatalError(f"producer: {self.name}: {type(raised).__name__}: {raised}") from raised

    def _make(self, method: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            method(*args)
        except BaseException as raised:
            self._answer.put(raised)
        else:
            self._answer.put(None)
