"""Dictionaries on the Hugging Face hub: `hf://org/name/folder`, and `release:sae_id`.

Releases are SAELens's: those of which a rule gives the repository and the folder.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...model.sources.hub import fetch_files
from .formats import LAYOUTS
from .formats.circuit_tracer import CONFIG as SET_CONFIG

_URL = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>refs/pr/\d+|[\w.-]+))?(?:/(?P<folder>[\w./-]+?))?/?"
)
_RELEASE = re.compile(r"(?P<release>[\w.-]+):(?P<id>[\w./-]+)")
_FIRST = re.compile(r"gemma-scope-\w+-(?:pt|it)-(?:res|mlp|att|transcoders)")
_SECOND = re.compile(r"(gemma-scope-2-\w+-(?:pt|it))-(res|mlp|att|transcoders)(-all)?")
_SITES = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_out", "transcoders": "transcoder"}
_LLAMA = re.compile(r"llama_scope_lx([ram])_(8|32)x")
_LLAMA_ID = re.compile(r"l(\d+)([ram])_(8|32)x")
_QWEN = re.compile(r"mwhanna-(qwen3-[\w.]+-transcoders(?:-lowl0)?)")
_BESIDE = ("config.json",)  # of Gemma Scope 2, where there is one


@dataclass(frozen=True)
class HubDictionary:
    """The place of a dictionary, or a folder of them, on the hub.

    Attributes:
        folder: Inside the repository, or one layer's file; "" for the repository itself.
    """

    repo: str
    revision: str | None = None
    folder: str = ""

    @classmethod
    def parse(cls, source: str) -> Self | None:
        """Returns what a text names; None where it is neither form."""
        if match := _URL.fullmatch(source):
            return cls(match["repo"], match["revision"], match["folder"] or "")
        match = _RELEASE.fullmatch(source)
        found = None if match is None else _resolved(match["release"], match["id"])
        return None if found is None else cls(found[0], None, found[1])

    def fetch(self, *, single: bool = True) -> Path:
        """Downloads its files, those that are not cached; returns the folder or file.

        Raises FileNotFoundError where the repository holds none, and as `fetch_files` does.
        """
        names = [name for layout in LAYOUTS for name in layout.files] + [SET_CONFIG, *_BESIDE]
        if self.folder.endswith(".safetensors"):
            parent = self.folder.rpartition("/")[0]
            wanted = [self.folder, _joined(parent, SET_CONFIG)]
        else:
            wanted = [_joined(self.folder, name) for name in names]
        allowed = [glob.escape(name) for name in wanted]
        if not single:
            prefix = glob.escape(_joined(self.folder, ""))
            allowed += [f"{prefix}*/{glob.escape(name)}" for name in names]
            allowed += [f"{prefix}*.safetensors"]
        path = fetch_files(self.repo, self.revision, allowed) / self.folder
        if not path.exists():
            raise FileNotFoundError(f"hf://{self.repo}: has no {self.folder!r}, or nothing to read")
        return path


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _resolved(release: str, sae_id: str) -> tuple[str, str] | None:
    """The repository and folder of one of SAELens's ids; None for a release of another kind."""
    if match := _SECOND.fullmatch(release):
        site = _SITES[match[2]] + ("_all" if match[3] else "")
        folder = sae_id if sae_id.startswith(site + "/") else f"{site}/{sae_id}"
        return f"google/{match[1]}", folder
    if _FIRST.fullmatch(release):
        return f"google/{release}", sae_id
    if (match := _LLAMA.fullmatch(release)) and (of := _LLAMA_ID.fullmatch(sae_id)):
        site, factor = match[1].upper(), match[2]
        return (
            f"fnlp/Llama3_1-8B-Base-LX{site}-{factor}x",
            f"Llama3_1-8B-Base-L{of[1]}{of[2].upper()}-{of[3]}x",
        )
    if match := _QWEN.fullmatch(release):
        return f"mwhanna/{match[1]}", f"{sae_id}.safetensors"
    return None
