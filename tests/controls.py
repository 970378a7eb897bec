"""Tiny ControlNets with random weights: zero convolutions of their own would say nothing."""

from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from tests.checkpoints import unet_names

HINTS = {"conv_in": 0, "blocks.0": 2, "blocks.1": 4, "blocks.2": 6, "blocks.3": 8, "blocks.4": 10, "blocks.5": 12,
         "conv_out": 14}  # fmt: skip


def control_net(base: Path, seed: int = 0, widths: tuple[int, ...] = (4, 8)) -> ControlNetModel:
    """For the base in that folder, whose pictures are 2 ** (len(widths) - 1) times as large as its latents."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(base / "unet", use_safetensors=True)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "controlnet_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape))
    return net.eval()


def control_folder(base: Path, folder: Path, seed: int = 0) -> Path:
    control_net(base, seed).save_pretrained(folder)
    return folder


def original_names(net: Any) -> dict[str, Tensor]:
    """As the ControlNet paper's own code names them (cldm/cldm.py: input_hint_block, zero_convs, middle_block_out)."""
    state: dict[str, Tensor] = net.state_dict()
    named = {k: t for k, t in state.items() if not k.startswith("controlnet_")}
    made = dict(unet_names(named))
    for ours, index in HINTS.items():
        for part in ("weight", "bias"):
            made[f"input_hint_block.{index}.{part}"] = state[f"controlnet_cond_embedding.{ours}.{part}"]
    for part in ("weight", "bias"):
        made[f"middle_block_out.0.{part}"] = state[f"controlnet_mid_block.{part}"]
    for i in range(len(net.controlnet_down_blocks)):
        for part in ("weight", "bias"):
            made[f"zero_convs.{i}.0.{part}"] = state[f"controlnet_down_blocks.{i}.{part}"]
    return {f"control_model.{key}": tensor for key, tensor in made.items()}
