"""The conformance kit: subclass ``DomainContract`` in a test file, and pytest checks that a domain keeps the contract.

    class TestDna(DomainContract):
        def make(self):
            return DnaDomain("tests/some.fasta")

Without pytest, ``faults(domain)`` returns the faults in words, by check. ``check_objective``, ``check_reward``,
``check_law``, ``check_grid``, ``check_sampler`` and ``check_metric`` raise ``Broken`` for the other offers of a plugin.
"""

from __future__ import annotations

from didi_core.testing.bench import Broken
from didi_core.testing.contract import DomainContract
from didi_core.testing.domain_checks import CHECKS, faults
from didi_core.testing.metric_checks import check_metric
from didi_core.testing.process_checks import check_grid, check_law, check_sampler
from didi_core.testing.training_checks import check_objective, check_reward

__all__ = [
    "CHECKS",
    "Broken",
    "DomainContract",
    "check_grid",
    "check_law",
    "check_metric",
    "check_objective",
    "check_reward",
    "check_sampler",
    "faults",
]
