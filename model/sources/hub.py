"""Models on the Hugging Face hub -> files in huggingface_hub's cache.

The library is optional, and everything around a download is its own: the cache (HF_HOME), the
endpoint (HF_ENDPOINT), tokens (`hf auth login`, HF_TOKEN), HF_HUB_OFFLINE and progress bars.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..weights.checkpoint import CheckpointError
from .huggingface_tokenizer import FILES as TOKENIZER_FILES
from .safetensors_dir import CONVERT, INDEX, PICKLES, SINGLE_FILE, read_config, weight_files
from .wheels import FetchError

_NAME = r"[\w.-]+/[\w.-]+"
_REVISION = r"refs/(?:pr|convert)/[\w.-]+|[\w.-]+"
_SOURCE = re.compile(rf"(?P<repo>{_NAME})(?:@(?P<revision>{_REVISION}))?(?::(?P<gguf>[\w./-]+))?")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_PROJECTORS = "*mmproj*"  # of images into a model's input; beside the models in their repositories


@dataclass(frozen=True)
class HubModel:
    """`org/name`, `org/name@revision`, and with `:Q4_K_M` or `:file.gguf` a GGUF file in it.

    Attributes:
        revision: A branch, tag or commit; None is the default branch.
        gguf: A quantisation or a file's name; None means config.json and safetensors.
    """

    repo: str
    revision: str | None = None
    gguf: str | None = None

    @classmethod
    def parse(cls, source: str) -> Self | None:
        """None where the text cannot be a model on the hub."""
        match = _SOURCE.fullmatch(source)
        # A relative path is no id, and a file's name is no name of a repository.
        if match is None or source[0] == "." or match["repo"].endswith((".gguf", ".safetensors")):
            return None
        return cls(**match.groupdict())

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}" + (f":{self.gguf}" if self.gguf else "")


# A commit never changes: what this process has fetched once is not asked for again.
_fetched: dict[HubModel, Path] = {}


def fetch_from_hub(model: HubModel) -> tuple[HubModel, Path]:
    """Downloads what is not cached; the model with its commit, and its directory or .gguf file.

    Of a directory, config.json is read before any weights are asked for. Pickles never are.

    Raises:
        FileNotFoundError: no such model, revision or file, or it is not cached and the hub is out
            of bounds; says which.
        FetchError: the hub refuses, cannot be reached, or a download ended early.
        CheckpointError: what is there is not supported.
    """
    known = _fetched.get(model)
    if known is not None and known.exists():
        return model, known
    folder, path = _directory(model) if model.gguf is None else _gguf_file(model)
    pinned = dataclasses.replace(model, revision=folder.name)
    _fetched[pinned] = path
    return pinned, path


def fetch_files(repo: str, revision: str | None, allowed: Sequence[str]) -> Path:
    """Downloads the files of a repository that match the patterns and are not cached.

    Returns the folder of the commit, in which some may be missing. Pickles never are asked for.

    Raises as `fetch_from_hub` does.
    """
    return _snapshot(HubModel(repo, revision), allowed, ignored=PICKLES)


def _directory(model: HubModel) -> tuple[Path, Path]:
    folder = _snapshot(model, ["config.json", "generation_config.json", INDEX, *TOKENIZER_FILES])
    pinned = dataclasses.replace(model, revision=folder.name)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{model}: no config.json{_what_else(pinned)}")
    read_config(folder)
    weights = [SINGLE_FILE] if _has_single_file(pinned, folder) else weight_files(folder)
    _snapshot(pinned, [glob.escape(name) for name in weights])
    for name in weights:
        if not (folder / name).is_file():
            raise CheckpointError(f"{model}: no {name}{_what_else(pinned)}")
    return folder, folder


def _has_single_file(model: HubModel, folder: Path) -> bool:
    """Says whether the repository holds the single file beside an index, cached or not."""
    return (folder / INDEX).is_file() and SINGLE_FILE in (_names(model) or [])


def _gguf_file(model: HubModel) -> tuple[Path, Path]:
    names = _names(model)
    allowed = _patterns(model) if names is None else list(map(glob.escape, _parts(model, names)))
    folder = _snapshot(model, allowed, ignored=_PROJECTORS)
    cached = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    return folder, folder / _parts(model, cached)[0]


def _parts(model: HubModel, names: Iterable[str]) -> list[str]:
    """The files of the GGUF model in a repository: one, or all its parts in order."""
    found = sorted(
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in _patterns(model))
        and not fnmatch.fnmatchcase(name, _PROJECTORS)
    )
    if not found:
        raise FileNotFoundError(f"{model}: no GGUF file of that name{_what_else(model)}")
    if len({_PART.sub("", name) for name in found}) > 1:
        raise FileNotFoundError(f"{model}: {', '.join(found)} could be meant: name the file")
    return found


def _patterns(model: HubModel) -> list[str]:
    """The files that a choice may mean: one by its name, or those that end in a quantisation."""
    tag = model.gguf or ""
    if tag.endswith(".gguf"):
        part = _PART.search(tag)
        return [tag if part is None else f"{tag[: part.start()]}-*-of-{part[2]}.gguf"]
    ends = (".gguf", "-*-of-*.gguf")
    return [
        f"*[-._]{kind}{end}"
        for kind in dict.fromkeys((tag, tag.upper(), tag.lower()))
        for end in ends
    ]


def _snapshot(
    model: HubModel, allowed: Sequence[str], ignored: str | Sequence[str] = "*/*"
) -> Path:
    """The folder of the model's commit, with those of the files that there are."""
    library = _library(model)
    options: dict[str, Any] = {
        "revision": model.revision,
        "allow_patterns": list(allowed),
        "ignore_patterns": [ignored] if isinstance(ignored, str) else list(ignored),
        "library_name": "bitlens",
    }
    with _hub_errors(model, library):
        return Path(library.snapshot_download(model.repo, **options))


def _names(model: HubModel) -> list[str] | None:
    """Every file of the repository; None where the hub cannot be asked."""
    try:
        # One request. `list_repo_files` tries for half a minute where there is no network.
        info = _library(model).HfApi().model_info(model.repo, revision=model.revision)
        return [sibling.rfilename for sibling in info.siblings]
    except Exception:  # whoever needs the answer meets the same trouble in `_snapshot`
        return None


def _what_else(model: HubModel) -> str:
    """What the repository holds instead, and the way out."""
    names = _names(model)
    if names is None:
        return " in the cache, and the hub cannot be asked (HF_HUB_OFFLINE, HF_ENDPOINT)"
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        return f"; there is {', '.join(f'{model.repo}:{name}' for name in ggufs[:8])}"
    pickles = [name for name in names if any(fnmatch.fnmatch(name, p) for p in PICKLES)]
    if pickles:
        return f"; {pickles[0]} is a pickle, which can run code when read. {CONVERT}"
    return f"; there is {', '.join(names[:8])}" if names else ""


def _library(model: HubModel) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"{model}: no such file or directory here; to load it from the Hugging Face hub, "
            "pip install 'bitlens[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _hub_errors(model: HubModel, library: Any) -> Iterator[None]:
    """One error for each thing that can go wrong, of a class of ours, with the way out."""
    errors, settings = library.errors, library.constants
    page = f"{settings.ENDPOINT}/{model.repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise FetchError(
            f"{model}: access is gated. Ask for it at {page}, then `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{model}: no branch, tag or commit {model.revision!r}; {page}/tree/main lists them"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{model}: neither a file or directory here nor a model at {settings.ENDPOINT}. If it "
            "is private, `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.HFValidationError as error:
        raise FileNotFoundError(
            f"{model}: no such file or directory here, and no id on the hub: {_line(error)}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _not_cached(model, library, error) from error
    except Exception as error:  # the library's errors have no class in common
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise FetchError(
                f"{model}: {settings.ENDPOINT} refuses access ({status}): `hf auth login` with a "
                "token that may read it, or set HF_TOKEN"
            ) from error
        raise FetchError(
            f"{model}: the download failed and will continue where it ended: {_line(error)}"
        ) from error


def _not_cached(model: HubModel, library: Any, error: Exception) -> OSError:
    settings = library.constants
    if settings.HF_HUB_OFFLINE:
        return FileNotFoundError(
            f"{model}: neither a file or directory here nor, whole, in the hub's cache "
            f"{settings.HF_HUB_CACHE}; HF_HUB_OFFLINE is set: unset it to download"
        )
    return FetchError(
        f"{model}: not in the cache {settings.HF_HUB_CACHE}, and {settings.ENDPOINT} cannot be "
        f"reached (HF_ENDPOINT names another): {_line(error)}"
    )


def _line(error: Exception) -> str:
    """The first line of a message, which may go on with advice about other libraries."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
