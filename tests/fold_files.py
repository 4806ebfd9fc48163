"""Folding models of a few thousand random weights in the hub's layout, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import EsmConfig, EsmFold2Config, EsmFold2Model, EsmForProteinFolding

STRUCTURE = {
    "sequence_dim": 32, "pairwise_dim": 16, "ipa_dim": 4, "resnet_dim": 8, "num_heads_ipa": 2, "num_qk_points": 2,
    "num_v_points": 2, "num_blocks": 2,
}  # fmt: skip
TRUNK = {
    "num_blocks": 2, "sequence_state_dim": 32, "pairwise_state_dim": 16, "sequence_head_width": 8,
    "pairwise_head_width": 8, "position_bins": 8, "max_recycles": 1, "chunk_size": None, "structure_module": STRUCTURE,
}  # fmt: skip
ATOMS = {
    "hidden_size": 16, "output_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "num_spatial_rope_pairs_per_axis": 1, "num_uid_rope_pairs": 1,
}  # fmt: skip


def random_fold(noise: float = 0.3) -> EsmForProteinFolding:
    """transformers' own ESMFold; with noise in the confidence heads its numbers differ from residue to residue."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    model = EsmForProteinFolding(
        EsmConfig(
            vocab_size=33, mask_token_id=32, pad_token_id=1, position_embedding_type="rotary", token_dropout=True,
            layer_norm_eps=1e-5, emb_layer_norm_before=False, is_folding_model=True,
            esmfold_config={"fp16_esm": False, "lddt_head_hid_dim": 16, "trunk": TRUNK}, **sizes,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("lddt_head", "ptm_head", "esm_s_mlp", "esm.encoder")):
                parameter.add_(torch.randn(parameter.shape) * noise)
    return model.eval()


def fold_folder(folder: Path) -> Path:
    random_fold().save_pretrained(folder)
    return folder


def fold2_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    diffusion = {"hidden_size": 16, "fourier_dim": 8, "pair_intermediate_size": 16, "atom_encoder": ATOMS, **small}
    head = {"diffusion_module": diffusion, "num_distogram_bins": 16, "num_diffusion_samples": 2}
    config = EsmFold2Config(
        hidden_size=16, pairwise_hidden_size=16, single_inputs_size=83, pair_transition_intermediate_size=16,
        num_loops=1, folding_trunk_num_hidden_layers=1, parcae_num_coda_layers=1, atom_encoder=ATOMS,
        structure_head={**head, "inference_num_steps": 2},
        confidence_head={"num_hidden_layers": 1, "distogram_bins": 16},
        msa_encoder={"hidden_size": 16, "outer_hidden_size": 8, "head_dim": 8, **small},
        lm_encoder={"num_hidden_layers": 1}, esmc_config={"model_type": "esmc", "hidden_size": 16, **small},
    )  # fmt: skip
    EsmFold2Model(config).save_pretrained(folder)
    return folder
