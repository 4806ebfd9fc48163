"""Files that ship inside the package."""

from __future__ import annotations

from functools import partial

from didi_core.storage.files import packaged

BUNDLED = "bundled"  # the name of tokenizer and judge; the teacher's is the core's
asset = partial(packaged, __package__)
