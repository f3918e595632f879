"""Judge images with an exported detector: numpy, pillow and onnxruntime, no PyTorch, no leanet.

python run_onnx.py RUN/export/model.onnx IMAGE...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = json.loads(session.get_modelmeta().custom_metadata_map["leanet"])
names = [output.name for output in session.get_outputs()]
size = (facts["img_size"], facts["img_size"])
for path in sys.argv[2:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32) / 255
    outputs = session.run(names, {"image": pixels.transpose(2, 0, 1)[None]})
    found = dict(zip(names, outputs, strict=True))
    verdict = ("normal", "anomalous")[int(found["verdict"][0])]
    print(f"{path}\t{found['score'][0]:.6f}\t{verdict}")
