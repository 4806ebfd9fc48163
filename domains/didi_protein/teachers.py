"""Teachers of proteins: the bundled one, DPLM's by name, and whatever checkpoint of a known layout is named."""

from __future__ import annotations

from pathlib import Path

from didi_core.errors import InputError, unknown
from didi_core.types import Denoiser

from .vocabulary import VOCABULARY

BUNDLED = "bundled"
# Wang et al. 2024 (arXiv 2402.18567), published under Apache-2.0. Pinned: what a name means must not change with the
# hub; full hashes, as the hub knows no short ones.
DPLM = {
    "dplm_150m": "airkingbd/dplm_150m@49b7125a5d28c6418fcc2f3c4fe799352ac1488b",
    "dplm_650m": "airkingbd/dplm_650m@7a7e651baa667d094aba05e9dc1cf52a3332110a",
    "dplm_3b": "airkingbd/dplm_3b@53849d4a7fe944ae0b9cf2bbc0d2cc0054795b51",
}
PLACES = ("<run directory>", "<folder or file of a checkpoint>", "<hub id owner/name>")


def load_teacher(name: str, bundled: Path) -> Denoiser:
    """A denoiser on the CPU, in eval mode.

    Args:
        name: ``bundled``, a name of ``DPLM``, a run directory, a folder or file of a known layout, or a hub id. A file
            or folder that exists goes before a name.
        bundled: folder of the bundled one.

    Raises:
        InputError: none of these, a hub that cannot be reached, or a checkpoint that does not fit.
    """
    from didi_core.checkpoints.importers import load_denoiser_from

    if name == BUNDLED:
        if not bundled.exists():
            raise InputError(
                f"the bundled teacher is not in this installation ({bundled}). Give teacher=<run directory>."
            )
        return load_denoiser_from(bundled, VOCABULARY)
    if Path(name).expanduser().exists():
        return load_denoiser_from(name, VOCABULARY)
    if name not in DPLM and "/" not in name:
        raise unknown("teacher", name, [BUNDLED, *DPLM, *PLACES])
    try:
        return load_denoiser_from(DPLM.get(name, name), VOCABULARY)
    except InputError as error:
        raise InputError(f"{error} teacher={BUNDLED} needs no download.") from None
