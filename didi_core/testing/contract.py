"""The checks of the kit as a pytest class."""

from __future__ import annotations

import pytest

from didi_core.testing.bench import Bench
from didi_core.testing.domain_checks import CHECKS
from didi_core.types import Denoiser, Domain


class DomainContract:
    """One test for each check. Subclass it, name the subclass ``Test...`` and implement ``make``.

    A domain without its own teacher is checked with a tiny untrained network, which is enough for the contract.
    """

    __test__ = False

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    def make(self) -> Domain:
        """Make the domain, with enough data for a few batches."""
        raise NotImplementedError(f"{type(self).__name__}.make must return the domain to check")

    def teacher(self, domain: Domain) -> Denoiser | None:
        """A teacher to check instead of the tiny network, for example ``domain.teacher("bundled")``."""
        del domain
        return None

    @pytest.mark.parametrize("check", list(CHECKS))
    def test_domain(self, check: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Run the named check; its docstring describes it."""
        domain = self.make()
        CHECKS[check](Bench(domain, self.teacher(domain), tmp_path_factory.mktemp("domain")))
