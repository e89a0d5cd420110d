"""Where a model comes from, what its revision pins, and what is refused, with which words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from streamer.backends.torch import TorchBackend, location
from streamer.errors import ConfigurationError, StartupError
from tests.tiny_models import edit, save_bert, save_roberta


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


def test_the_revision_is_a_hash_of_the_content(tmp_path: Path) -> None:
    one, other = save_bert(tmp_path / "one"), save_bert(tmp_path / "other")
    found = location.content_hash(one)
    assert len(found) == 12
    assert location.content_hash(other) == found
    (other / "README.md").write_text("not what the model answers by")
    assert location.content_hash(other) == found
    assert TorchBackend.load(str(other), device="cpu", revision=found).revision == found
    for name, key in (
        ("config.json", "hidden_dropout_prob"),
        ("tokenizer_config.json", "x"),
        ("tokenizer.json", "x"),
    ):
        before = (other / name).read_bytes()
        edit(other / name, **{key: 0.5})
        assert location.content_hash(other) != found, name
        (other / name).write_bytes(before)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(ConfigurationError, match=rf"model.revision is '{found}', but the content of"):
        TorchBackend.load(str(other), device="cpu", revision=found)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save_bert(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StartupError, match=r"no model.safetensors, .* are not loaded.*save_pretrained"):
        TorchBackend.load(str(tmp_path), device="cpu")


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path, bert: Path) -> None:
    BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(StartupError, match=r"lacks weights .*classifier.weight.* fine-tuned for this task"):
        TorchBackend.load(str(tmp_path), device="cpu")


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_bert(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(StartupError, match=r"is a vit model, .* fine-tuned to classify texts"):
        TorchBackend.load(str(tmp_path), device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "home-made", "auto_map": {"AutoConfig": "c.C"}}')
    with pytest.raises(StartupError, match=r"cannot be loaded"):
        TorchBackend.load(str(tmp_path), device="cpu")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_roberta(tmp_path / "roberta")
    save_bert(tmp_path / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bert" / name).write_bytes((tmp_path / "roberta" / name).read_bytes())
    with pytest.raises(StartupError, match=r"has \d+ tokens and the model knows \d+"):
        TorchBackend.load(str(tmp_path / "bert"), device="cpu")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("tokenizer.json", r"has no tokenizer: .*save_pretrained"),
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, removed: str, message: str) -> None:
    save_bert(tmp_path)
    (tmp_path / removed).unlink()
    with pytest.raises(StartupError, match=message):
        TorchBackend.load(str(tmp_path), device="cpu")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save_bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(StartupError, match=rf"'{tmp_path.name}' cannot be loaded: SafetensorError"):
        TorchBackend.load(str(tmp_path), device="cpu")


def test_a_model_without_padding_is_refused(tmp_path: Path) -> None:
    save_bert(tmp_path)
    edit(tmp_path / "tokenizer_config.json", pad_token=None)
    edit(tmp_path / "config.json", pad_token_id=None)
    with pytest.raises(StartupError, match=r"no padding token"):
        TorchBackend.load(str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "no/such/folder"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(
        StartupError, match=rf"model.name is '{name}', and there is no such folder; shipped are"
    ):
        TorchBackend.load(name, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test wants to miss")
def test_an_unavailable_device_is_named(bert: Path) -> None:
    with pytest.raises(StartupError, match=r"model.device is 'cuda:1', but .* set it to auto or cpu"):
        TorchBackend.load(str(bert), device="cuda:1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"device": "gpu"}, "model.device is 'gpu': it must be auto, cpu, cuda or cuda:N"),
        ({"precision": "half"}, "model.precision is 'half': it must be one of auto, bf16, fp16, fp32, amp"),
        ({"task": "poetry"}, "model.task is 'poetry': it must be one of classification"),
    ],
)
def test_a_setting_that_cannot_be_is_named(bert: Path, setting: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TorchBackend.load(str(bert), **{"device": "cpu", **setting})  # type: ignore[arg-type]


def test_a_name_that_is_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"neither a shipped model .* nor a folder, nor a name"):
        TorchBackend.load("not a name", device="cpu")
    with pytest.raises(ConfigurationError, match=r"model.name is empty"):
        TorchBackend.load("", device="cpu")


def test_an_unreachable_hub_is_a_startup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StartupError, match=r"'nobody/nothing' at revision 'v1' is not .*hf download"):
        TorchBackend.load("nobody/nothing", revision="v1", device="cpu")


def test_a_hub_model_brings_its_commit_as_revision_and_only_its_own_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked: dict[str, Any] = {}

    def download(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(save_bert(tmp_path / commit))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    backend = TorchBackend.load("owner/model", revision="v1", device="cpu")
    assert (backend.name, backend.revision) == ("owner/model", commit)
    assert (asked["name"], asked["revision"]) == ("owner/model", "v1")
    assert not any("bin" in pattern or "py" in pattern for pattern in asked["allow_patterns"])


@pytest.mark.slow
def test_loading_prints_nothing_and_its_threads_do_not_spin(bert: Path) -> None:
    """OpenMP itself says what it understood: the variable counts only when set before torch is loaded."""
    code = f"""
from streamer.backends.torch import TorchBackend
TorchBackend.load({str(bert)!r}, device="cpu").warm_up()
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**environment, "OMP_NUM_THREADS": "1", "OMP_DISPLAY_ENV": "TRUE"},
    )
    shown = re.compile(r"\s*OPENMP DISPLAY ENVIRONMENT BEGIN.*?OPENMP DISPLAY ENVIRONMENT END\s*", re.DOTALL)
    assert (done.returncode, done.stdout, shown.sub("", done.stderr)) == (0, "", "")
    if "OPENMP DISPLAY" in done.stderr:  # not every OpenMP shows its settings
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_the_packages_above_load_neither_torch_nor_transformers() -> None:
    code = """
import sys
import streamer.backends, streamer.backends.fake, streamer.tasks, streamer.engine
print(*{"torch", "transformers", "numpy"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_unnamed_labels_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_bert(tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    TorchBackend.load(str(tmp_path), device="cpu")
    assert "does not name its labels" in caplog.text


def test_a_config_of_another_size_than_the_weights_is_refused(tmp_path: Path) -> None:
    save_bert(tmp_path)
    settings = BertConfig.from_pretrained(tmp_path)
    settings.hidden_size = 64
    settings.save_pretrained(tmp_path)
    with pytest.raises(StartupError, match=r"cannot be loaded"):
        TorchBackend.load(str(tmp_path), device="cpu")
