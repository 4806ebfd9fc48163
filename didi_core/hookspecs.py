"""The hooks: what a plugin may offer (``didi_register_*``) and what it may listen to (``didi_on_*``).

A plugin is a module (or object) named by an entry point in the group ``didi.plugins``. It implements the hooks that it
needs, each as a function marked with ``@hookimpl``, and may leave out arguments that it does not use.
``DIDI_INTERFACE = 2`` in the module is the version of this interface that it was written for. docs/extending.md is the
tutorial. This module imports only pluggy, so an unused plugin costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from didi_core.diffusion.grids import Grid
    from didi_core.diffusion.laws import Law
    from didi_core.objectives.base import ObjectiveSettings
    from didi_core.objectives.rewards import RewardSettings, TextFunction
    from didi_core.sampling.base import Sampler
    from didi_core.types import Domain, Metric, Sample

PROJECT = "didi"
INTERFACE = 2  # increases when a hook or protocol changes in a way that breaks plugins
# For each interface, what authors of the one before change. CHANGELOG.md has the details.
CHANGES = MappingProxyType(
    {
        2: "modules have moved into packages (didi_core.sampling, .objectives, .diffusion), a reward is a function of "
        "samples and no longer steps an optimiser, and an objective is a hook of its own, didi_register_objectives",
    }
)
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def didi_register_domains() -> Mapping[str, Callable[..., Domain]]:
    """Domains by name, for ``domain=<name>``.

    Fires once, when plugins are loaded. The factory is called when a command uses the domain, with the keys of the
    config node ``data``: its parameters, or those of ``domain/<name>.yaml`` where a config folder has that file.

        return {"dna": DnaDomain}
    """


@hookspec
def didi_register_laws() -> Mapping[str, Law]:
    """Unmasking laws by name, for ``law=<name>`` and ``objective.rollout.law=<name>``.

    Fires once, when plugins are loaded.

        return {"left_to_right": LeftToRight()}
    """


@hookspec
def didi_register_grids() -> Mapping[str, type[Grid]]:
    """Time grids by name, for ``grid=<name>`` and ``objective.rollout.grid=<name>``: frozen dataclasses whose fields
    are set by ``grid={kind: <name>, <field>: ...}``.

    Fires once, when plugins are loaded.

        return {"sigmoid": Sigmoid}
    """


@hookspec
def didi_register_samplers() -> Mapping[str, type[Sampler]]:
    """Samplers by name, for ``sampler=<name>``: frozen dataclasses whose fields are set by
    ``sampler={kind: <name>, <field>: ...}``.

    Fires once, when plugins are loaded; an instance is made for every command that uses it.

        return {"remask": Remask}
    """


@hookspec
def didi_register_objectives() -> Mapping[str, type[ObjectiveSettings]]:
    """Objectives by name, for ``objective=<name>``: frozen dataclasses whose fields are the keys of ``objective:``.

    Fires once, when plugins are loaded. A file ``objective/<name>.yaml`` in a config folder may give other values of
    the keys, or ``kind: <name>`` and values under another name.

        return {"mmd": Mmd}
    """


@hookspec
def didi_register_rewards() -> Mapping[str, type[RewardSettings] | TextFunction]:
    """Rewards by name, for an entry of ``objective.reward``: functions of the texts marked with ``@reward``
    (``didi_core.objectives.rewards``), or frozen dataclasses whose fields are keys of the entry.

    Fires once, when plugins are loaded.

        return {"charge": charge}
    """


@hookspec
def didi_register_metrics() -> Mapping[str, Mapping[str, Callable[[Domain], Metric]]]:
    """Further metrics for a domain that is somebody else's: domain, then metric, then what makes it.

    Fires once, when plugins are loaded; the metric is made when samples of that domain are evaluated. Its ``name`` is
    the one given here.

        return {"protein": {"charge": lambda domain: NetCharge(domain.encode)}}
    """


@hookspec
def didi_register_config_folders() -> Sequence[Path]:
    """Folders of YAML files that extend the config groups: ``domain/dna.yaml``, ``objective/mine.yaml``,
    ``sizes/distill_dna.yaml``.

    Fires once, when plugins are loaded.

        return [Path(__file__).parent / "configs"]
    """


@hookspec
def didi_on_step(run_dir: Path, step: int, scalars: Mapping[str, float]) -> None:
    """A training step was logged.

    Fires in ``distill`` and ``pretrain`` whenever a line is written to metrics.jsonl (``training.log_every``). After a
    resume, steps continue from the last checkpoint.

        writer.add_scalar("loss", scalars["loss"], step)
    """


@hookspec
def didi_on_samples(run_dir: Path, samples: Sequence[Sample], record: Mapping[str, object]) -> None:
    """Samples were written to ``run_dir / record["file"]``.

    Fires after ``sample`` and at the end of ``distill``.

        table.add_data(*(sample.text for sample in samples))
    """


@hookspec
def didi_on_run_end(run_dir: Path, record: Mapping[str, object]) -> None:
    """A run has finished successfully; ``record`` is the content of run.json.

    Fires at the very end of a command that opened a run directory; never for a run that failed.

        print(f"{run_dir} took {record['stages']['training']['seconds']} s")
    """
