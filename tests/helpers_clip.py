"""A real model of open_clip, too small to know anything."""

from __future__ import annotations

import json
from pathlib import Path

MODEL = "fsod-tiny"
SIZES = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def save_tiny_clip(folder: Path) -> str:
    """Make its architecture known to open_clip, save random weights; returns `clip:MODEL/FILE`."""
    import open_clip
    import torch

    (folder / f"{MODEL}.json").write_text(json.dumps(SIZES))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(5)
        network = open_clip.create_model(MODEL, load_weights=False)
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, folder / "clip.pt")
    return f"clip:{MODEL}/{folder / 'clip.pt'}"
