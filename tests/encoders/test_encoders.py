"""Encoders: crops of objects as vectors, by a real model of open_clip and by MobileNetV2; weights that do not fit."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from helpers_clip import MODEL
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import mobilenet_v2

from fewshot_cli import encoders
from fewshot_cli.encoders import open_encoder, open_text_encoder, parse_encoder, with_whole_path
from fewshot_cli.encoders.crops import BATCH, crops_of
from fewshot_cli.errors import CheckpointError, ConfigError, FsodError, ModelError, NetworkError
from fewshot_cli.progress import SilentReporter

CPU, SILENT = torch.device("cpu"), SilentReporter()


def noise(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def network_of(clip: str) -> torch.nn.Module:
    network = open_clip.create_model(MODEL, load_weights=False).eval()
    network.load_state_dict(torch.load(clip.partition("/")[2], weights_only=True)["state_dict"])
    return network


# --- crops ---


def test_a_crop_is_the_square_around_the_box() -> None:
    """A box of 10 × 6 pixels gives 10 × 10 pixels of the image, which are not scaled if that is the side asked for."""
    pixels = noise(40, 50)
    crop = crops_of(pixels, torch.tensor([[20.0, 12.0, 30.0, 18.0]]), 10)
    assert torch.equal(pixels[:, 10:20, 20:30].float() / 255, crop[0])


def test_beyond_the_image_a_crop_is_black() -> None:
    crop = crops_of(torch.full((3, 20, 20), 255, dtype=torch.uint8), torch.tensor([[0.0, 0.0, 4.0, 20.0]]), 20)
    columns = crop[0].amax(dim=(0, 1))
    assert [0.0] * 8 + [1.0] * 12 == columns.tolist()


def test_a_box_without_pixels_has_a_crop() -> None:
    assert (1, 3, 8, 8) == crops_of(noise(9, 9), torch.tensor([[4.0, 4.0, 4.2, 4.1]]), 8).shape
    assert (0, 3, 8, 8) == crops_of(noise(9, 9), torch.empty(0, 4), 8).shape


# --- CLIP ---


@torch.no_grad()
def test_embeddings_are_those_that_open_clip_gives_for_the_crops(clip: str) -> None:
    """Its own transform and encode_image, crop by crop, from a PIL image."""
    pixels, boxes = noise(64, 64), torch.tensor([[0.0, 0.0, 32.0, 32.0], [16.0, 8.0, 48.0, 40.0]])
    network = network_of(clip)
    transform = open_clip.image_transform(32, is_train=False)
    whole = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    crops = torch.stack([transform(whole.crop(tuple(box))) for box in boxes.tolist()])
    expected = network.encode_image(crops, normalize=True)
    found = open_encoder(clip, CPU, SILENT).embed(pixels, boxes)
    assert (2, 24) == found.shape and torch.float32 == found.dtype
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_texts_are_embedded_as_open_clip_does(clip: str) -> None:
    texts, network = ["a photo of a cat", "a photo of a helmet"], network_of(clip)
    expected = network.encode_text(open_clip.get_tokenizer(MODEL)(texts), normalize=True)
    encoder = open_text_encoder(clip, CPU, SILENT)
    torch.testing.assert_close(encoder.embed_texts(texts), expected, atol=1e-6, rtol=0)
    assert encoder.scale == pytest.approx(1 / 0.07)


def test_more_crops_than_a_batch_are_embedded_as_one_by_one(clip: str) -> None:
    encoder, pixels = open_encoder(clip, CPU, SILENT), noise(64, 64)
    corners = np.random.default_rng(0).integers(0, 40, (BATCH + 5, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + 20], axis=1)).float()
    together = encoder.embed(pixels, boxes)
    torch.testing.assert_close(torch.cat([encoder.embed(pixels, box[None]) for box in boxes]), together)
    assert (0, 24) == encoder.embed(pixels, boxes[:0]).shape


def test_weights_may_be_safetensors_and_half_precision(clip: str, tmp_path: Path) -> None:
    """They are computed with in float32; autocast around it changes nothing."""
    half = {name: value.half() for name, value in network_of(clip).state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    encoder = open_encoder(f"clip:{MODEL}/{tmp_path / 'half.safetensors'}", CPU, SILENT)
    pixels, boxes = noise(32, 32), torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    found = encoder.embed(pixels, boxes)
    torch.testing.assert_close(found, open_encoder(clip, CPU, SILENT).embed(pixels, boxes), atol=5e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found, encoder.embed(pixels, boxes))


def test_opening_an_encoder_leaves_the_random_numbers_alone(clip: str) -> None:
    before = torch.get_rng_state()
    open_encoder(clip, CPU, SILENT)
    assert torch.equal(before, torch.get_rng_state())


# --- MobileNetV2 ---


@torch.no_grad()
def test_mobilenet_embeds_with_its_last_map(tmp_path: Path) -> None:
    """The input of torchvision's classifier, for the normalised crop."""
    network = mobilenet_v2(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "mobilenet.pth")
    pixels, boxes = noise(224, 224), torch.tensor([[0.0, 0.0, 224.0, 224.0]])
    mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    normal = (pixels.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    expected = network.features(normal[None]).mean(dim=(2, 3))
    found = open_encoder(f"backbone:mobilenet_v2:{tmp_path / 'mobilenet.pth'}", CPU, SILENT).embed(pixels, boxes)
    torch.testing.assert_close(found, expected / expected.norm(), atol=1e-5, rtol=0)


def test_mobilenet_takes_the_features_alone(real: Path) -> None:
    """The published weights without the classifier tell two halves of an image apart."""
    file = real / "weights" / "mobilenet_v2_imagenet_features.pth"
    encoder = open_encoder(f"backbone:mobilenet_v2:{file}", CPU, SILENT)
    found = encoder.embed(noise(64, 64), torch.tensor([[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 64.0, 64.0]]))
    assert (2, 1280) == found.shape and float(found[0] @ found[1]) < 0.999


# --- names and weights that do not fit ---


def test_options_name_an_encoder_and_its_weights(clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("clip", "") == (parse_encoder("clip").spec.name, parse_encoder("clip").weights)
    assert "a:b" == parse_encoder("backbone:mobilenet_v2:a:b").weights
    (tmp_path / "own.pt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert f"clip:{tmp_path / 'own.pt'}" == with_whole_path("clip:own.pt")
    assert f"clip:{MODEL}/{tmp_path / 'own.pt'}" == with_whole_path(f"clip:{MODEL}/own.pt")
    assert "clip:ViT-B-32/openai" == with_whole_path("clip:ViT-B-32/openai")
    for unknown in ("clap", "clipper:x", "backbone:resnet", ""):
        with pytest.raises(ValueError, match="Valid: clip, backbone:mobilenet_v2"):
            parse_encoder(unknown)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda name: None if name == "open_clip" else util.find_spec(name))
    with pytest.raises(ConfigError, match="--distil clip needs the package open_clip") as caught:
        encoders.check_installed("clip:x", "--distil")
    assert 'pip install "fsod[clip]"' == caught.value.hint
    encoders.check_installed("backbone:mobilenet_v2", "--distil")


@pytest.mark.parametrize(
    ("weights", "kind", "message"),
    [
        ("nowhere.pt", CheckpointError, "'nowhere.pt' is neither a file nor a tag"),
        ("ViT-B-16/opnai", CheckpointError, "no weights of CLIP ViT-B-16"),
        ("ViT-X-99/{file}", ModelError, "open_clip has no model 'ViT-X-99'"),
        ("{file}", CheckpointError, "weights do not fit: CLIP ViT-B-32"),
        ("fsod-tiny/{short}", CheckpointError, "truncated or damaged"),
        ("fsod-tiny/{other}", CheckpointError, "weights do not fit: CLIP fsod-tiny"),
        ("fsod-tiny/{code}", CheckpointError, "could run code"),
    ],
)
def test_clip_weights_that_cannot_be_used(
    weights: str, kind: type[FsodError], message: str, clip: str, tmp_path: Path
) -> None:
    file = Path(clip.partition("/")[2])
    (tmp_path / "short.pt").write_bytes(file.read_bytes()[:5000])
    torch.save(mobilenet_v2(weights=None).state_dict(), tmp_path / "other.pt")
    torch.save({"state_dict": CPU, "code": print}, tmp_path / "code.pt")
    paths = {"file": file, **{name: tmp_path / f"{name}.pt" for name in ("short", "other", "code")}}
    with pytest.raises(kind, match=message) as caught:
        open_encoder(f"clip:{weights.format(**paths)}", CPU, SILENT)
    assert caught.value.hint


def test_published_weights_are_open_clips_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag goes to open_clip with the activation that its weights were trained with; a failed download says so."""
    asked = []

    def refuse(model: str, **options: object) -> None:
        asked.append((model, options))
        raise RuntimeError("no route to host\nmore")

    monkeypatch.setattr(open_clip, "create_model", refuse)
    for named in ("clip", "clip:openai", "clip:ViT-L-14", "clip:ViT-B-16/laion2b_s34b_b88k"):
        with pytest.raises(NetworkError, match="no route to host") as caught:
            open_encoder(named, CPU, SILENT)
        assert "clip:FILE" in (caught.value.hint or "")
    assert [
        ("ViT-B-32", {"pretrained": "laion2b_s34b_b79k", "force_quick_gelu": False}),
        ("ViT-B-32", {"pretrained": "openai", "force_quick_gelu": True}),
        ("ViT-L-14", {"pretrained": "openai", "force_quick_gelu": True}),
        ("ViT-B-16", {"pretrained": "laion2b_s34b_b88k", "force_quick_gelu": False}),
    ] == asked
