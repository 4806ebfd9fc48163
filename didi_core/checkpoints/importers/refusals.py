"""Messages for checkpoints that cannot be imported: what they are, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from didi_core.checkpoints.importers.sources import Held
from didi_core.errors import InputError

# First parts of names by which foreign architectures are known.
FOREIGN = {
    ("esm.",): "ESM-2 (DPLM, when it is a masked diffusion model of proteins): use it with domain=protein",
    ("model.net.", "net."): "DPLM's own training files: use it with domain=protein",
    ("transformer.h.", "h.0.", "wte."): "GPT-2, which is autoregressive (evaluate autoregressive=<folder> takes it)",
    ("model.layers.", "model.embed_tokens."): "a LLaMA-like causal model",
    ("bert.", "roberta.", "cls.predictions."): "BERT",
    ("encoder.block.", "decoder.block."): "T5",
    ("backbone.layers.", "backbone.model.", "backbone.backbone.layers."): "a state-space model (DiMamba)",
    ("backbone.down", "backbone.input_blocks."): "a U-Net",
}
UNIFORM_ALGORITHMS = ("duo", "duo_base", "distillation", "udlm", "ot-finetune")


def refuse_other_processes(held: Held) -> None:
    """Refuse networks that were trained for another process than time-independent masked diffusion.

    Raises:
        InputError: uniform-state diffusion (Duo), an autoregressive model, another parameterisation (SEDD, D3PM), or
            a network that is conditioned on time.
    """
    algorithm = str(held.setting("algo", "name") or "")
    kind = f"{held.setting('model_type') or ''} {' '.join(map(str, held.setting('architectures') or ()))}".lower()
    parameterisation = held.setting("algo", "parameterization") or held.setting("parameterization")
    uniform = (
        algorithm in UNIFORM_ALGORITHMS
        or "duo" in kind.split()
        or parameterisation == "mean"
        or held.setting("diffusion") == "uniform"
        or held.source.startswith("s-sahoo/duo")
    )
    if uniform:
        raise InputError(
            f"{held.source} is a uniform-state diffusion model (Duo): its noise is random tokens, not masks, so its "
            "network was never asked to fill in a mask and a masked student cannot be distilled from it. "
            "Give a masked model (MDLM, DiDi-Instruct, IDLM, SDTT)."
        )
    if algorithm == "ar" or parameterisation == "ar" or held.setting("backbone") == "ar":
        raise InputError(
            f"{held.source} is an autoregressive model. Compare with it by evaluate autoregressive=<folder>; "
            "a masked model is needed here."
        )
    if isinstance(parameterisation, str) and parameterisation not in ("subs",):
        raise InputError(
            f"{held.source} was trained with parameterization={parameterisation}; only subs is supported, where logits "
            "are those of the clean token."
        )
    if held.setting("time_conditioning") is True or held.setting("algo", "time_conditioning") is True:
        raise InputError(
            f"{held.source} is conditioned on time (time_conditioning=true); the networks here are not, as in MDLM's "
            "released models, so its logits could not be reproduced."
        )


def looks_like(names: Iterable[str]) -> str:
    """What a state dict of an unknown layout probably is, in words."""
    names = list(names)
    for starts, what in FOREIGN.items():
        if any(name.startswith(starts) for name in names):
            return f"it looks like {what}"
    if any("lora_" in name for name in names):
        return "it looks like a LoRA adapter, without the model it belongs to"
    if any(name.endswith(("/kernel", ".kernel")) for name in names):
        return "it looks like a Flax or TensorFlow model"
    return f"its tensors are {', '.join(sorted(names)[:4])} ..."
