"""From a model's name to a folder with its files, and the revision that pins their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import ConfigurationError, StartupError

SHIPPED = Path(__file__).parents[2] / "models"

# The files that decide what a model answers. Nothing else is downloaded or part of a revision: no code, no
# pickles, no copies for other frameworks.
CONTENT = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
VOCABULARY = ("tokenizer.json", "vocab.*", "*.model")


@dataclass(frozen=True, slots=True)
class Location:
    """A model's files. `revision` is the hub's commit, or a hash of the content."""

    name: str
    revision: str
    folder: Path


def locate(name: str, revision: str | None = None) -> Location:
    """Find a shipped model, a folder, or a model of the hub (which is downloaded unless the cache has it).

    `revision`: a branch, tag or commit of the hub; for a folder, the content hash that it must have.
    Raises StartupError when there is no such model or it cannot be loaded safely, ConfigurationError when its
    content is not that of `revision`.
    """
    if not name:
        raise ConfigurationError(
            f"model.name is empty: name a shipped model ({_shipped()}), a folder or a hub name"
        )
    folder = SHIPPED / name if name in shipped() else Path(name).expanduser()
    if folder.is_dir():
        _check(folder, name)
        found = content_hash(folder)
        if revision and revision != found:
            raise ConfigurationError(
                f"model.revision is '{revision}', but the content of '{name}' is {found}: bring those files "
                "back, or set the revision to that or to nothing"
            )
        return Location(folder.resolve().name, found, folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise StartupError(f"model.name is '{name}', and there is no such folder; shipped are: {_shipped()}")
    folder = _download(name, revision)
    _check(folder, name)
    return Location(name, folder.name, folder)


def shipped() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def content_hash(folder: Path) -> str:
    """12 hexadecimal digits that stand for the weights, the config and the tokenizer in a folder."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted({path for pattern in CONTENT for path in folder.glob(pattern)}):
        with path.open("rb") as stream:
            inner = hashlib.file_digest(stream, hashlib.blake2b).digest()
        digest.update(path.name.encode() + b"\0" + inner)
    return digest.hexdigest()


def _shipped() -> str:
    return ", ".join(shipped()) or "none"


def _check(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise StartupError(f"'{name}' has no config.json: it is not the folder of a transformers model")
    if not any((folder / file).is_file() for file in ("model.safetensors", "model.safetensors.index.json")):
        raise StartupError(
            f"'{name}' has no model.safetensors, and pickled weights (pytorch_model.bin) are not loaded, "
            "because they can run code: where you trust them, convert them with model.save_pretrained(FOLDER)"
        )
    if not any(path.is_file() for pattern in VOCABULARY for path in folder.glob(pattern)):
        raise StartupError(
            f"'{name}' has no tokenizer: save it beside the model, tokenizer.save_pretrained(FOLDER) writes "
            "tokenizer.json"
        )


def _download(name: str, revision: str | None) -> Path:
    """The snapshot of a hub model in the local cache; its folder is named by the commit."""
    import huggingface_hub
    from huggingface_hub import errors

    at = f" at revision '{revision}'" if revision else ""
    try:
        # Files of sub-folders are for other runtimes.
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(CONTENT), ignore_patterns=["*/*"]
        )
    except errors.HFValidationError as error:
        raise ConfigurationError(
            f"model.name is '{name}': neither a shipped model ({_shipped()}), nor a folder, nor a name that "
            "the hub allows (owner/name)"
        ) from error
    except errors.GatedRepoError as error:
        raise StartupError(
            f"'{name}' is gated: accept its terms on https://huggingface.co/{name} and set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StartupError(f"the hub has '{name}', but not{at}: see its Files tab for the commits") from error
    except errors.RepositoryNotFoundError as error:
        raise StartupError(
            f"the hub has no '{name}' that you may see: check model.name (shipped are: {_shipped()}), or set "
            "HF_TOKEN for a private model"
        ) from error
    except (OSError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError) as error:
        raise StartupError(
            f"'{name}'{at} is not in the local cache, and the hub cannot be reached "
            f"({type(error).__name__}): fetch it elsewhere with 'hf download {name} --local-dir FOLDER' and "
            f"set model.name to that folder, or name a shipped model ({_shipped()})"
        ) from error
    return Path(folder)
