"""Boxes on photographs from an exported file, without fsod and PyTorch: `pip install numpy onnxruntime pillow`.

    python examples/onnx_predict.py model.onnx photo.jpg …

Prints a line a detection, tabs between: image, class, score, and the corners x1 y1 x2 y2 in pixels.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["fsod"])
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = np.array(about["image_size"]) / image.size
    scale = scale if about["resize"]["place"] == "stretched" else scale.min().repeat(2)
    canvas = Image.new("RGB", (about["image_size"],) * 2, tuple(about["resize"]["pad"]))
    canvas.paste(image.resize((scale * image.size).round().astype(int).clip(1), Image.Resampling.BILINEAR))
    pixels = np.asarray(canvas).transpose(2, 0, 1)[None]
    for box, score, label in zip(*session.run(["boxes", "scores", "labels"], {"images": pixels}), strict=True):
        name = about["classes"][label]
        if score >= about["thresholds"].get(name, 0.3):
            print(path, name, f"{score:.3f}", *(box / [*scale, *scale]).round(1), sep="\t")
