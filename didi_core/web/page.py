"""The page itself: Gradio around ``drawing`` and ``markup``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from didi_core.diffusion.laws import LAWS
from didi_core.domain.abilities import HasForm
from didi_core.domain.conditioning import Field
from didi_core.domain.palette import letter_groups
from didi_core.errors import DidiError, InputError
from didi_core.plugins import registry
from didi_core.types import Domain
from didi_core.web import markup
from didi_core.web.drawing import AS_TRAINED, UPLOADED, Asked, Limits, watch
from didi_core.web.models import BUNDLED, Shelf, domain_of

if TYPE_CHECKING:
    import gradio

INSTALL = 'pip install "didi-core[demo]"'
LONGEST_SHOW = 8.0  # seconds of waiting that all calls of one drawing are slowed down by, at most
WAITING = 16  # requests in the queue; further visitors are asked to come back later
FEW, MANY = 4, 32  # calls of the two models at first: what a student saves is seen
WORDS = (
    "# didi_core\nA masked diffusion model writes a sequence by filling in masks, many in one call. "
    "Watch two models do it, side by side: every frame is one call of the network."
)


@dataclass(frozen=True)
class Offer:
    """What the page offers.

    models: of each domain that has a tab, the models to choose from. is_open: whether visitors may name others.
    users: drawings at one time; the others wait.
    """

    shelf: Shelf
    models: dict[str, tuple[str, ...]]
    limits: Limits = field(default_factory=Limits)
    is_open: bool = True
    users: int = 2


def offered(domains: Sequence[str], models: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The models of every tab: those that the domain carries, and the given ones under the domain of their card.
    Without a choice of domains, those whose letters have colours come first.

    A model without a card on this machine, such as a hub id, is offered under every domain.

    Raises:
        InputError: a domain is unknown, or a model belongs to one that has no tab.
    """
    names = list(domains) or sorted(registry().names("domains"), key=_without_colours)
    for name in names:
        registry().catalogue("domains").find(name)
    own = {name: domain_of(name) for name in models}
    for name, domain in own.items():
        if domain is not None and domain not in names:
            raise InputError(f"model={name} is one of domain {domain!r}, which is not among domains={names}.")
    return {name: (*(m for m in models if own[m] in (None, name)), BUNDLED) for name in names}


def _without_colours(name: str) -> bool:
    return not letter_groups(registry().domain(name, {}))


def import_gradio() -> Any:
    """Gradio. Raises InputError with what to install."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    try:
        import gradio as found
    except ImportError:
        raise InputError(f"the page of demo needs Gradio, which is not installed: {INSTALL}") from None
    return found


def build_page(offer: Offer) -> gradio.Blocks:
    """The page, not served yet."""
    gr = import_gradio()
    with gr.Blocks(title="didi_core", analytics_enabled=False) as page:
        gr.HTML(markup.style())
        gr.Markdown(WORDS)
        for name in offer.models:
            with gr.Tab(name):
                _tab(gr, offer, registry().domain(name, {}))
    page.queue(max_size=WAITING, default_concurrency_limit=offer.users)
    return page


def _tab(gr: Any, offer: Offer, domain: Domain) -> None:
    """The fields of one domain, and what its models write."""
    limits, name = offer.limits, domain.name
    with gr.Row():
        model = gr.Dropdown(
            list(offer.models[name]), label="Model", allow_custom_value=offer.is_open, elem_id=f"{name}-model",
            info="a run directory or a hub id" if offer.is_open else None,
        )  # fmt: skip
        law = gr.Dropdown([AS_TRAINED, *LAWS], label="Law: which positions a call writes")
    with gr.Row():
        calls = gr.Number(FEW, label="Calls, first model", precision=0, elem_id=f"{name}-calls")
        more = gr.Number(MANY, label="Calls, second model", precision=0, elem_id=f"{name}-more")
        num = gr.Number(1, label=f"Sequences (at most {limits.num})", precision=0, elem_id=f"{name}-num")
        temperature = gr.Number(1.0, label="Temperature", elem_id=f"{name}-temperature")
        seed = gr.Number(0, label="Seed", precision=0, elem_id=f"{name}-seed")
        pace = gr.Slider(0, 1, 0.4, step=0.1, label="Seconds that a call is shown", elem_id=f"{name}-pace")
    with gr.Accordion("What is given: length, gaps ...", open=False):
        length = gr.Textbox(label=f"Length (at most {limits.length})", info="60, or 40-80", elem_id=f"{name}-length")
        template = gr.Textbox(label="Gaps: a text with positions to fill", info=_gaps(domain), lines=2)
        form = [(one, _field(gr, name, one)) for one in (domain.form if isinstance(domain, HasForm) else ())]
    with gr.Row():
        start = gr.Button("Draw", variant="primary", elem_id=f"{name}-draw")
        stop = gr.Button("Stop", elem_id=f"{name}-stop")
    message = gr.HTML(elem_id=f"{name}-message")
    with gr.Row():
        sides = [_column(gr, f"{name}-{which}") for which in ("first", "second")]
    gr.HTML(markup.legend(domain))
    table, file = gr.HTML(elem_id=f"{name}-scores"), gr.HTML(elem_id=f"{name}-file")
    inputs = [model, num, calls, more, law, temperature, length, template, seed, pace, *(box for _, box in form)]

    def draw(model: Any, *given: Any) -> Iterator[tuple[str, ...]]:
        num, calls, more, law, temperature, length, template, seed, pace, *filled = given
        own = {one.key: value for (one, _), value in zip(form, filled, strict=True)}
        asked = Asked(num, calls, more, law, temperature, length, template, seed, own)
        yield from _shown(offer, name, str(model or ""), asked, float(pace or 0))

    running = start.click(draw, inputs, [message, *sides, table, file], concurrency_id="draw", show_progress="hidden")
    stop.click(None, cancels=[running])


def _shown(offer: Offer, domain: str, model: str, asked: Asked, pace: float) -> Iterator[tuple[str, ...]]:
    """The moving parts of the page, after every call: message, both sides, scores and file."""
    try:
        if not offer.is_open and model not in offer.models[domain]:
            raise InputError(f"model={model} is not among those of this page: {', '.join(offer.models[domain])}.")
        for view in watch(offer.shelf, domain, model, asked, offer.limits):
            parts = ("", markup.side(view, 0), markup.side(view, 1))
            if view.samples[0]:
                samples = (*view.samples[0], *view.samples[1])
                yield (*parts, markup.score_table(view), markup.download(view.domain, samples))
            else:
                yield (*parts, "", "")
                longest = max(side.total or 1 for side in view.sides)
                time.sleep(min(max(pace, 0.0), 1.0, LONGEST_SHOW / longest))
    except DidiError as error:
        yield (markup.note(str(error)), "", "", "", "")


def _column(gr: Any, name: str) -> Any:
    """A part that stands beside another where there is room, and under it on a phone."""
    with gr.Column(min_width=320):
        return gr.HTML(elem_id=name)


def _gaps(domain: Domain) -> str:
    """How the domain spells a position to fill."""
    return "mark each with _" if getattr(domain, "free_letters", "_") else "write [[12]] for twelve tokens"


def _field(gr: Any, domain: str, one: Field) -> Any:
    """The input of one field of a form."""
    if one.upload:
        return gr.File(label=one.label, type="filepath", height=120)
    lines, name = 3 if one.suffix else 1, f"{domain}-{one.key}"
    return gr.Textbox(label=one.label, info=one.hint or None, elem_id=name, lines=lines)


def serve(page: gradio.Blocks, host: str, port: int, browser: bool = False, forever: bool = True) -> str:
    """Serve a page, until interrupted if ``forever``. Returns its address.

    Raises:
        InputError: the address cannot be used, because another program listens there or it is not of this machine.
    """
    check_address(host, port)
    gr = import_gradio()
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"]  # of the visitor's machine: nothing is fetched
    theme = gr.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"])
    theme = theme.set(  # the theme's own are too faint: below a contrast of 4.5
        block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400", color_accent="*primary_600",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
    )  # fmt: skip
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, inbrowser=browser, prevent_thread_lock=True, share=False, quiet=True,
            footer_links=[], max_file_size=UPLOADED, theme=theme, ssr_mode=False, mcp_server=False,
            enable_monitoring=False,
        )  # fmt: skip
    except OSError as error:  # taken between the check and the launch
        raise InputError(f"port={port} cannot be used on {host}: {error}. Give another port.") from None
    if forever:
        print(f"the page of didi_core is at {address} (stop it with Ctrl-C)", flush=True)
        page.block_thread()
    return str(address)


def check_address(host: str, port: int) -> None:
    """Raise InputError where a server cannot listen at an address."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"port={port} cannot be used on host={host}: {reason}. Give another port=<number>.") from None
