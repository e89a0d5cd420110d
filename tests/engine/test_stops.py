"""The end of the process, where nothing would mend it: nothing is committed."""

from __future__ import annotations

import pytest

from streamer.errors import DeviceError, FatalError, OutOfMemory
from streamer.records import Outcome, TopicPartition
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
