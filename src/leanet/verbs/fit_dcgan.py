"""fit dcgan FOLDER: pretrain a DC-GAN, for CAVGA to start from."""

from __future__ import annotations

from pathlib import Path

from leanet.config import UsageError
from leanet.verbs.words import config_first, fit_parser


def fit_dcgan(argv: list[str]) -> None:
    """Pretrain a DC-GAN on a folder of images."""
    from leanet.config import build, to_yaml
    from leanet.fit import on_earlier
    from leanet.generation import dcgan_run
    from leanet.generation.dcgan_run import DcganOptions
    from leanet.methods.dcgan import PRESETS, Config

    words = config_first([word for word in argv if word != "--print_config"])
    parser = fit_parser(
        "dcgan", "pretrain a DC-GAN for CAVGA to start from", PRESETS, DcganOptions, Config
    )
    preset = parser.parse_args(words).preset
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"dcgan has no preset {preset!r}; allowed: {', '.join(PRESETS)}")
        parser.set_defaults(PRESETS[preset])
    given = parser.parse_args(words)
    if given.method != "dcgan":
        raise UsageError(f"the configuration is for {given.method}, not for dcgan")
    values = given.as_dict()
    options, config = build(DcganOptions, values), build(Config, values)
    if "--print_config" in argv:
        print(to_yaml(options) + to_yaml(config), end="")
        return
    place = given.folder or given.data
    if place is None:
        raise UsageError("which images? usage: leanet fit dcgan FOLDER [options]")
    data = Path(place)
    out = Path(given.out) if given.out else Path("runs") / f"{data.stem}-dcgan"
    earlier = on_earlier(resume=given.resume, overwrite=given.overwrite)
    run = dcgan_run.fit_dcgan(data, out, options, config, earlier=earlier)
    then = f"leanet fit cavga DATA --variant D_u --dcgan_weights {run}"
    print(f"\nlook at {run / 'sheet.png'}, then: {then}")
