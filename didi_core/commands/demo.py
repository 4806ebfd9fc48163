"""``demo``: a local web page on which models fill in sequences call by call, student and teacher side by side."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from didi_core.commands.common import CommonSettings
from didi_core.device import Machine
from didi_core.errors import InputError, at_least
from didi_core.web.drawing import Limits
from didi_core.web.models import Shelf
from didi_core.web.page import Offer, build_page, check_address, import_gradio, offered, serve


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/demo.yaml``.

    run: models to offer beside the bundled ones. domains: those that have a tab; all that are installed without any.
    open_models: whether a visitor may name other run directories and hub ids. By default only while no other machine
        can reach the page.
    users: drawings at one time; more wait in a queue.
    """

    run: tuple[str, ...] | None = None
    domains: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 7860
    browser: bool = False
    open_models: bool | None = None
    max_length: int = 512
    max_num: int = 8
    max_calls: int = 256
    users: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.port <= 65535:
            raise InputError(f"port={self.port} is out of range: it must be between 1 and 65535.")
        at_least(1, users=self.users)
        if not self.host:
            raise InputError("host is empty: give 127.0.0.1 for this machine only, 0.0.0.0 for all that can reach it.")
        self.limits()

    def limits(self) -> Limits:
        """What one request may ask for."""
        return Limits(self.max_length, self.max_num, self.max_calls)

    @property
    def is_open(self) -> bool:
        """Whether visitors may name models."""
        return is_local(self.host) if self.open_models is None else self.open_models


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> None:
    """Serve the page until it is interrupted. Nothing is written."""
    del config, command_line
    import_gradio()  # both of these fail before a network is loaded
    check_address(settings.host, settings.port)
    shelf = Shelf(Machine.of(settings.device, settings.precision))
    models = offered(settings.domains, settings.run or ())
    page = build_page(Offer(shelf, models, settings.limits(), settings.is_open, settings.users))
    serve(page, settings.host, settings.port, settings.browser)


def is_local(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
