"""The samplers by name: the values of ``sampler=``, to which plugins add."""

from __future__ import annotations

from didi_core.catalogue import Catalogue
from didi_core.config import Choice, choose
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.autoregressive import Autoregressive
from didi_core.sampling.base import Sampler
from didi_core.sampling.first_hitting import FirstHitting
from didi_core.sampling.joint_fp32 import JointFp32
from didi_core.sampling.p2 import P2
from didi_core.sampling.reparameterised import Dplm
from didi_core.sampling.rgas import Rgas

BUILT_IN: dict[str, type[Sampler]] = {
    "ancestral": Ancestral,
    "autoregressive": Autoregressive,
    "dplm": Dplm,
    "first_hitting": FirstHitting,
    "joint_fp32": JointFp32,
    "p2": P2,
    "rgas": Rgas,
}
SAMPLERS: Catalogue[type[Sampler]] = Catalogue("sampler", BUILT_IN)


def sampler(choice: Choice) -> Sampler:
    """The sampler of that name, or of ``{kind: name, ...}`` with its own keys.

    Raises:
        InputError: the name is unknown, or the sampler does not have such a key.
    """
    return choose(SAMPLERS, choice, "sampler")
