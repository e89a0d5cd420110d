"""The model that ships with the package: small, and right about sentences that nobody would argue over."""

from __future__ import annotations

import pytest

from streamer.backends.torch import TorchBackend, location
from tests.tiny_models import classify

PLAIN = {
    "房间很干净，服务态度非常好，下次还会再来。": "positive",
    "这本书写得太好了，强烈推荐给大家！": "positive",
    "物流很快，包装完好，水果又新鲜又甜。": "positive",
    "手机质量很好，屏幕清晰，性价比很高，非常满意。": "positive",
    "质量太差了，用了两天就坏了，客服也不理人。": "negative",
    "酒店又脏又吵，再也不会来了，非常失望。": "negative",
    "味道很难吃，送来的时候已经凉了，差评！": "negative",
    "书是盗版的，印刷模糊，还有一股臭味，要求退货。": "negative",
    "A wonderful film, warm, funny and beautifully acted.": "positive",
    "One of the best movies of the year, I loved every minute of it.": "positive",
    "An engaging and moving story with great performances.": "positive",
    "A boring, pointless mess. I want my two hours back.": "negative",
    "The plot is stupid, the acting is terrible and the jokes are not funny.": "negative",
    "Dull, lifeless and far too long.": "negative",
}


@pytest.fixture(scope="module")
def sentiment() -> TorchBackend:
    return TorchBackend.load("sentiment", device="cpu", precision="fp32")


def test_it_ships_and_is_small() -> None:
    assert "sentiment" in location.shipped()
    weights = location.SHIPPED / "sentiment" / "model.safetensors"
    assert weights.stat().st_size <= 12_000_000


def test_it_names_itself_and_its_labels(sentiment: TorchBackend) -> None:
    described = sentiment.describe()
    assert described["name"] == "sentiment"
    assert described["revision"] == location.content_hash(location.SHIPPED / "sentiment")
    assert described["labels"] == ["negative", "positive"]
    assert described["max_length"] >= 128


@pytest.mark.parametrize(("text", "label"), PLAIN.items())
def test_it_is_right_about_plain_sentences(sentiment: TorchBackend, text: str, label: str) -> None:
    (value,) = classify(sentiment, [text])
    assert value.label == label
    assert value.score > 0.6


def test_a_batch_says_what_each_text_alone_gets(sentiment: TorchBackend) -> None:
    together = classify(sentiment, PLAIN)
    for text, value in zip(PLAIN, together, strict=True):
        (alone,) = classify(sentiment, [text])
        assert alone.scores == pytest.approx(value.scores, abs=1e-5)


def test_bf16_gives_the_same_labels(sentiment: TorchBackend) -> None:
    exact = classify(sentiment, PLAIN)
    rounded = classify(TorchBackend.load("sentiment", device="cpu", precision="bf16"), PLAIN)
    assert [value.label for value in rounded] == [value.label for value in exact]
    for value, reference in zip(rounded, exact, strict=True):
        assert value.scores == pytest.approx(reference.scores, abs=0.02)
