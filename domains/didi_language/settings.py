"""The keys of the config node ``data``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from didi_core.errors import InputError

from .assets import BUNDLED
from .packing import Held
from .sources import Source

OPENWEBTEXT = ("Skylion007/openwebtext", "openwebtext")
HELD_OUT_OPENWEBTEXT = 100_000  # MDLM's split
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class LanguageSettings:
    """``configs/domain/language.yaml``.

    path: source of documents; without it only the bundled assets are available.
    prompts: JSON lines of prompts and responses, instead of documents. chat: whether they are written in the
        tokenizer's chat template; by default where it has one.
    column, subset, documents, limit,
        on_bad, unpacked_limit: how they are read (see ``Source``).
    allow_loss: whether more than half of the documents may be left out.
    validation: share of documents held out (below 1), or the number of last documents (1 and more). By default the last
        100,000 of OpenWebText, or 5 % of anything else. split_seed: seed of the choice, for a share.
    tokenizer, judge: ``bundled``, a folder, or a hub id.
    length: tokens of a block, including begin and end token.
    cache: folder of tokenised data; by default in the user's cache folder.
    """

    path: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    chat: bool | None = None
    column: str = "text"
    subset: str | None = None
    documents: str = "three_breaks"
    limit: int | None = None
    on_bad: str = "error"
    allow_loss: bool = False
    unpacked_limit: int | None = None
    validation: float | None = None
    split_seed: int = 0
    tokenizer: str = BUNDLED
    length: int = 256
    judge: str = BUNDLED
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.prompts is not None and (self.path is not None or not self.prompts):
            raise InputError("data.prompts names at least one file, in the place of data.path: leave one of them out.")
        if self.chat is not None and self.prompts is None:
            raise InputError(f"data.chat={self.chat} is how data.prompts are written: set data.prompts too.")
        if self.length < 4:
            raise InputError(f"data.length={self.length} is out of range: at least 4, two of which frame the block.")
        if self.validation is not None and not 0 < self.validation < float("inf"):
            raise InputError(f"data.validation={self.validation} is out of range: it must be positive.")
        if self.validation is not None and self.validation >= 1 and self.validation != int(self.validation):
            raise InputError(f"data.validation={self.validation}: a share below 1, or a whole number of documents.")
        self.source  # noqa: B018  # raises for wrong settings before anything is read

    @property
    def source(self) -> Source | None:
        """The source of documents; None without ``path``."""
        if self.path is None:
            return None
        return Source(self.path, self.column, self.subset, self.documents, self.limit, self.on_bad, self.unpacked_limit)

    @property
    def held(self) -> Held:
        """Which documents are held out."""
        if self.validation is None:
            openwebtext = self.path is not None and len(self.path) == 1 and self.path[0] in OPENWEBTEXT
            return Held(last=HELD_OUT_OPENWEBTEXT) if openwebtext else Held(HELD_OUT_SHARE, seed=self.split_seed)
        if self.validation < 1:
            return Held(self.validation, seed=self.split_seed)
        return Held(last=int(self.validation))
