"""The end of the process, where nothing would mend it: nothing is committed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamer.errors import DeadLetterLimit, DeviceError, FatalError, OutOfMemory
from streamer.limits import FEW, Limits
from streamer.records import DeadLetter, Envelope, Job, Outcome, Release, Result, TopicPartition
from streamer.worker import InlineWorker
from tests.engine.parts import HungWorker, PromptSink, away
from tests.engine.rig import Rig
from tests.engine.test_failures import filled


class ShortWorker(InlineWorker):
    """A broken device: one value too few."""

    def collect(self, timeout: float) -> list[Outcome]:
        outcomes = super().collect(timeout)
        for outcome in outcomes:
            outcome.values = outcome.values[:-1]
        return outcomes


def ends_with_device_error(rig: Rig) -> None:
    with pytest.raises(DeviceError) as stopped:
        rig.run()
    assert stopped.value.exit_code == 6
    rig.engine.close()
    assert rig.committed == {} and not rig.results


def test_a_wrong_number_of_outputs_stops_everything() -> None:
    rig = Rig()
    rig.worker = ShortWorker
    rig.restart()
    for _ in range(10):
        rig.send("good")
    ends_with_device_error(rig)


def test_a_device_that_hangs_stops_everything_in_time() -> None:
    rig = Rig()
    rig.worker = lambda scorer: HungWorker(scorer, rig.clock)
    rig.restart()
    for _ in range(10):
        rig.send("good")
    ends_with_device_error(rig)
    assert 5.0 <= rig.clock.now < 6.5


@pytest.mark.parametrize("error", [FatalError, DeviceError])
def test_an_error_that_nothing_would_mend_stops_everything(error: type[FatalError]) -> None:
    rig = filled(10)
    rig.on = away("infer:before", 1, error)
    with pytest.raises(error):
        rig.run()
    rig.engine.close()
    assert rig.committed == {} and not rig.dead_letters


@pytest.mark.parametrize("error", [FatalError, DeviceError])
def test_a_tokenizer_that_is_broken_buries_nothing(error: type[Exception]) -> None:
    rig = filled(10)
    rig.on = away("encode:before", 1, error)
    with pytest.raises(error):
        rig.run()
    rig.engine.close()
    assert not rig.dead_letters and rig.committed == {}


def test_out_of_memory_of_the_last_batch_in_a_drain_commits_nothing_of_it() -> None:
    rig = filled(4)
    rig.on = away("infer:before", 1, OutOfMemory)
    rig.engine.intake()
    rig.clock.wait(1.0)
    rig.engine.dispatch()
    rig.engine.drain()
    assert rig.log.committed.get(TopicPartition("texts.in", 0), 0) == len(rig.results)


def test_a_dead_letter_that_cannot_be_written_holds_the_commit_to_the_end() -> None:
    rig = Rig(sink=PromptSink)
    rig.send("refused")
    rig.sink.hold = True
    rig.steps(50)
    rig.engine.drain()
    assert rig.committed == {}


def test_a_supervisor_that_starts_it_again_and_again_buries_little() -> None:
    rig = Rig(max_texts=1, limits=Limits(dead_letters_in_a_row=64))
    for number in range(500):
        rig.send("refused", str(number))
    for _ in range(20):
        with pytest.raises(DeadLetterLimit):
            rig.run()
        rig.engine.close()
        rig.restart()
    assert 64 <= len(rig.dead_letters) <= 2 * 64 + 20 * FEW


class Refusing(PromptSink):
    """Its topic takes no result: each is dead after all. Its letter is written when somebody has looked."""

    def __init__(self, encode: Callable[[Job], Envelope], *, wait: Callable[[float], None]) -> None:
        super().__init__(encode, wait=wait)
        self.waiting: list[Release] = []

    def publish(self, release: Release) -> None:
        release.unacknowledged += 1
        self.waiting.append(release)

    def poll(self, timeout: float) -> None:
        waiting, self.waiting = self.waiting, []
        for release in waiting:
            bad = [job for job in release.jobs if isinstance(job.settled, Result)]
            for job in bad:
                job.settled = DeadLetter("result_too_large", "MSG_SIZE_TOO_LARGE", "", "publish", 1, "m", 0)
            self.refused += bad
            if bad:
                self.waiting.append(release)
            else:
                super().publish(release)
        super().poll(timeout)


@pytest.mark.parametrize(
    "limits", [Limits(dead_letters_in_a_row=5), Limits(dead_letter_share=0.1), Limits()], ids=str
)
def test_results_that_their_topic_refuses_count_before_their_letters_are_written(limits: Limits) -> None:
    rig = Rig(sink=Refusing, limits=limits)
    for number in range(600):
        rig.send("good", str(number))
    if limits == Limits():
        rig.run()
        assert len(rig.dead_letters) == 600
        return
    with pytest.raises(DeadLetterLimit, match="result_too_large"):
        rig.run()
    rig.engine.close()
    assert len(rig.dead_letters) <= (5 if limits.dead_letters_in_a_row else 220)
    assert sum(rig.committed.values()) == len(rig.dead_letters), "what came before is committed"
