"""Find the files of a checkpoint: in a local folder, in the hub's cache, or on the hub."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tf_pipeline.arguments import renamed

HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "subfolder", "force_download")

# Files of a checkpoint by their endings, and the size up to which their content is read to know them again.
_WEIGHTS = (".safetensors", ".bin", ".h5")
_CONTENT = (*_WEIGHTS, ".json", ".txt", ".model", ".spm", ".jinja", ".py")
_READ = 2**24

# The file that tells a LoRA adapter.
ADAPTER_CONFIG = "adapter_config.json"

# Files of tokenizers, of which a checkpoint has some.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model",
    "source.spm", "target.spm", "chat_template.jinja",
)  # fmt: skip

# Files of which one describes the image processor or the feature extractor.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class RepositoryError(OSError):
    """A checkpoint that cannot be found; the message says where it was sought, and gives advice."""


def split_hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options that say where a checkpoint comes from out of ``options``."""
    renamed(options, "use_auth_token", "token")
    return {name: options.pop(name) for name in HUB_OPTIONS if name in options}


def repository_file(source: str | os.PathLike, name: str, required: bool = True, **hub_options: Any) -> Path | None:
    """Path of one file of a checkpoint, downloaded through ``huggingface_hub`` if it is not local.

    Args:
        source: a folder or a hub id such as ``"google-bert/bert-base-uncased"``.
        name: the file's name.
        required: raise if the file is not there, rather than return ``None``.
        **hub_options: any of ``HUB_OPTIONS``.

    Raises:
        RepositoryError: if the folder, the repository or (if required) the file cannot be found.
    """
    if os.path.isdir(source):
        path = Path(source, hub_options.get("subfolder") or "", name)
        if path.is_file():
            return path
        if required:
            raise RepositoryError(lacking(path.parent, f"has no {name}; it is not a checkpoint folder."))
        return None
    return _hub_file(str(source), name, required, **hub_options)


def lacking(source: str | os.PathLike, what: str, **hub_options: Any) -> str:
    """A sentence about a repository that is no checkpoint, or if it holds a LoRA adapter alone, what to do with that.

    Args:
        source: a folder or a hub id.
        what: the rest of the sentence behind the name.
        **hub_options: any of ``HUB_OPTIONS``.
    """
    base = None
    with contextlib.suppress(RepositoryError, ValueError, AttributeError):
        if path := repository_file(source, ADAPTER_CONFIG, required=False, **hub_options):
            base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") or "its base model"
    if base is None:
        return f"{source} {what}"
    advice = (
        f"{source} holds a LoRA adapter, which is no checkpoint by itself: load {base} and call "
        f"model.load_adapter({str(source)!r}); merge_and_unload() and save_pretrained() then make a checkpoint."
    )
    around = Path(source).parent
    if os.path.isdir(source) and (around / "config.json").is_file():
        advice += f" If tf-pipeline train wrote it, {around} is the checkpoint with the adapter in its weights."
    return advice


def refuse_checkpoint(folder: str | os.PathLike, source: str | os.PathLike, overwrite: bool) -> None:
    """Require that a folder holds no checkpoint but that of ``source``, if there is to be one.

    Raises:
        FileExistsError: naming a file of it.
    """
    if overwrite or not os.path.isdir(folder) or (os.path.isdir(source) and os.path.samefile(folder, source)):
        return
    if taken := sorted(name for name in os.listdir(folder) if name == "config.json" or name.endswith(_WEIGHTS)):
        raise FileExistsError(
            f"{folder} holds a checkpoint already ({taken[0]}); --overwrite (overwrite=True) replaces it."
        )


def copy_files(source: str | os.PathLike, names: Iterable[str], folder: str | os.PathLike, **hub_options: Any) -> None:
    """Copy those files of a checkpoint that are there; arguments are those of :func:`repository_file`."""
    for name in names:
        if (path := repository_file(source, name, required=False, **hub_options)) is not None:
            shutil.copyfile(path, Path(folder, name))


def fingerprint(source: str | os.PathLike) -> str:
    """A string that tells a checkpoint from others, found without reading its weights.

    Of a folder, names and content of its files, of large ones size and time of their last change; of a hub id, the
    commit.

    Raises:
        RepositoryError: if there is no config.
    """
    config = repository_file(source, "config.json")
    if not os.path.isdir(source):
        return config.parent.name
    hashed = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(source).iterdir()):
        if path.is_file() and path.name.endswith(_CONTENT):
            facts = path.stat()
            content = path.read_bytes() if facts.st_size <= _READ else str((facts.st_size, facts.st_mtime_ns)).encode()
            hashed.update(repr((path.name, hashlib.blake2b(content).hexdigest())).encode())
    return hashed.hexdigest()


def _hub_file(repo_id: str, name: str, required: bool, **hub_options: Any) -> Path | None:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repo_id, name, **hub_options))
    except errors.LocalEntryNotFoundError as error:
        if not required and _is_cached(repo_id, **hub_options):
            return None
        raise RepositoryError(
            f"{name} of {repo_id!r} is not in the local cache and the hub cannot be reached: "
            f"{_offline_reason(error, hub_options)}. Check the connection, or pass the path of a local folder; no "
            f"folder {repo_id!r} exists here."
        ) from error
    except errors.EntryNotFoundError as error:
        if required:
            what = f"has no {_path(name, hub_options)}; it is not a checkpoint."
            raise RepositoryError(lacking(repo_id, what, **hub_options)) from error
        return None
    except errors.GatedRepoError as error:
        raise RepositoryError(
            f"The hub repository {repo_id!r} is gated: ask for access on its page, then log in with `hf auth login` or "
            f"pass token=. {error}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RepositoryError(
            f"The hub repository {repo_id!r} has no revision {hub_options.get('revision')!r}."
        ) from error
    except errors.HFValidationError as error:
        raise RepositoryError(
            f"{repo_id!r} is neither a local folder nor a hub repository, whose id would be like 'owner/name'."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RepositoryError(
            f"{repo_id!r} is neither a local folder nor a hub repository that can be read: {error}"
        ) from error
    except (errors.HfHubHTTPError, ValueError) as error:
        raise RepositoryError(f"{name} of {repo_id!r} could not be fetched from the hub: {error}") from error


def _path(name: str, hub_options: dict[str, Any]) -> str:
    return "/".join(filter(None, (hub_options.get("subfolder"), name)))


def _offline_reason(error: Exception, hub_options: dict[str, Any]) -> str:
    from huggingface_hub import constants

    if hub_options.get("local_files_only"):
        return "local_files_only=True was given"
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else str(error.__cause__ or error).rstrip(".")


def _is_cached(repo_id: str, **hub_options: Any) -> bool:
    """Whether some revision's config is in the cache, so that an absent file is absent rather than not fetched."""
    from huggingface_hub import try_to_load_from_cache

    options = {key: hub_options[key] for key in ("cache_dir", "revision") if hub_options.get(key)}
    return isinstance(try_to_load_from_cache(repo_id, _path("config.json", hub_options), **options), str)
