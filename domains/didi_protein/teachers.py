"""DPLM's checkpoints by name (Wang et al. 2024, arXiv 2402.18567), published under Apache-2.0.

Pinned: what a name means must not change with the hub; full hashes, as the hub knows no short ones.
"""

from __future__ import annotations

DPLM = {
    "dplm_150m": "airkingbd/dplm_150m@49b7125a5d28c6418fcc2f3c4fe799352ac1488b",
    "dplm_650m": "airkingbd/dplm_650m@7a7e651baa667d094aba05e9dc1cf52a3332110a",
    "dplm_3b": "airkingbd/dplm_3b@53849d4a7fe944ae0b9cf2bbc0d2cc0054795b51",
}
