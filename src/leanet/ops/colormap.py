"""Colors for numbers: tables uint8 [256, 3] (sRGB), from the lowest value to the highest.

A color table shows no edges of its own if equal steps of the value look equally far apart, which
needs a lightness that only rises, or, for signed values, only falls away from zero.

    inferno   values >= 0; black to pale yellow, perceptually uniform (van der Walt & Smith 2015,
              https://bids.github.io/colormap, CC0)
    signed    blue for negative, grey for 0, red for positive: straight lines in CIE Lab, both ends
              equally dark and equally vivid
    jet       the look of older work, on request only: its lightness rises and falls, so that its
              yellow and cyan bands look like edges where there are none
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.ops.color import lab_to_rgb

NAMES: Final = ("inferno", "signed", "jet")
STEPS: Final = 256
# Lab of the signed table, within what sRGB can show: lightness, green-red, blue-yellow.
_BLUE, _GREY, _RED = (40.0, 17.0, -58.0), (86.0, 0.0, 0.0), (40.0, 58.0, 38.0)
_INFERNO: Final = """
00000401000501010601010802010a02020c02020e03021004031204031405041706041907051b08051d09061f0a0722
0b07240c08260d08290e092b10092d110a30120a32140b34150b37160b39180c3c190c3e1b0c411c0c431e0c451f0c48
210c4a230c4c240c4f260c51280b53290b552b0b572d0b592f0a5b310a5c320a5e340a5f3609613809623909633b0964
3d09653e0966400a67420a68440a68450a69470b6a490b6a4a0c6b4c0c6b4d0d6c4f0d6c510e6c520e6d540f6d550f6d
57106e59106e5a116e5c126e5d126e5f136e61136e62146e64156e65156e67166e69166e6a176e6c186e6d186e6f196e
71196e721a6e741a6e751b6e771c6d781c6d7a1d6d7c1d6d7d1e6d7f1e6c801f6c82206c84206b85216b87216b88226a
8a226a8c23698d23698f24699025689225689326679526679727669827669a28659b29649d29649f2a63a02a63a22b62
a32c61a52c60a62d60a82e5fa92e5eab2f5ead305dae305cb0315bb1325ab3325ab43359b63458b73557b93556ba3655
bc3754bd3853bf3952c03a51c13a50c33b4fc43c4ec63d4dc73e4cc83f4bca404acb4149cc4248ce4347cf4446d04545
d24644d34743d44842d54a41d74b3fd84c3ed94d3dda4e3cdb503bdd513ade5238df5337e05536e15635e25734e35933
e45a31e55c30e65d2fe75e2ee8602de9612bea632aeb6429eb6628ec6726ed6925ee6a24ef6c23ef6e21f06f20f1711f
f1731df2741cf3761bf37819f47918f57b17f57d15f67e14f68013f78212f78410f8850ff8870ef8890cf98b0bf98c0a
f98e09fa9008fa9207fa9407fb9606fb9706fb9906fb9b06fb9d07fc9f07fca108fca309fca50afca60cfca80dfcaa0f
fcac11fcae12fcb014fcb216fcb418fbb61afbb81dfbba1ffbbc21fbbe23fac026fac228fac42afac62df9c72ff9c932
f9cb35f8cd37f8cf3af7d13df7d340f6d543f6d746f5d949f5db4cf4dd4ff4df53f4e156f3e35af3e55df2e661f2e865
f2ea69f1ec6df1ed71f1ef75f1f179f2f27df2f482f3f586f3f68af4f88ef5f992f6fa96f8fb9af9fc9dfafda1fcffa4
"""  # two hexadecimal digits for each of R, G and B


@functools.cache
def color_table(name: str) -> NDArray[np.uint8]:
    """The table [256, 3] of that name; it is shared, and read-only.

    Raises ValueError for another name.

    >>> color_table("signed")[[0, 255]].tolist()
    [[5, 91, 190], [183, 32, 36]]
    """
    if name not in NAMES:
        raise ValueError(f"there is no color table {name!r}; choose one of {', '.join(NAMES)}")
    table = {"inferno": _inferno, "signed": _signed, "jet": _jet}[name]()
    table.setflags(write=False)
    return table


def colored(share: NDArray[np.floating[Any]], name: str) -> NDArray[np.uint8]:
    """Shares of the table [...] in [0, 1], others clipped, as colors [..., 3].

    >>> colored(np.array([0.0, 1.0]), "inferno").tolist()
    [[0, 0, 4], [252, 255, 164]]
    """
    level = np.rint(np.clip(share, 0, 1) * (STEPS - 1)).astype(np.uint8)
    colors: NDArray[np.uint8] = color_table(name)[level]
    return colors


def _inferno() -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(_INFERNO), dtype=np.uint8).reshape(STEPS, 3).copy()


def _signed() -> NDArray[np.uint8]:
    """Zero lies between the two middle entries, which are the same grey but for a hair."""
    place = np.linspace(-1, 1, STEPS)
    ends = np.where(place[:, None] < 0, _BLUE, _RED)
    lab = np.asarray(_GREY) + np.abs(place)[:, None] * (ends - np.asarray(_GREY))
    rgb = lab_to_rgb(torch.from_numpy(lab).T[None, :, :, None])[0, :, :, 0].T
    table: NDArray[np.uint8] = np.rint(255 * rgb.numpy()).astype(np.uint8)
    return table


def _jet() -> NDArray[np.uint8]:
    """Three ramps up and down, one channel behind the other."""
    place = np.linspace(0, 1, STEPS)[:, None]
    ramps = np.clip(1.5 - np.abs(4 * place - (3, 2, 1)), 0, 1)
    table: NDArray[np.uint8] = np.rint(255 * ramps).astype(np.uint8)
    return table
