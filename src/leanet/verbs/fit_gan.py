"""fit gan DATA: train a generator of images."""

from __future__ import annotations

from pathlib import Path

from leanet.config import UsageError
from leanet.verbs.words import config_first, fit_parser


def fit_gan(argv: list[str]) -> None:
    """Train the generators of a data set."""
    from leanet.config import build, to_yaml
    from leanet.fit import on_earlier
    from leanet.generation import gan_run
    from leanet.generation.gan_run import GanOptions
    from leanet.methods.gan import PRESETS, Config

    words = config_first([word for word in argv if word != "--print_config"])
    parser = fit_parser("gan", "train a generator of images", PRESETS, GanOptions, Config)
    preset = parser.parse_args(words).preset
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"gan has no preset {preset!r}; allowed: {', '.join(PRESETS)}")
        parser.set_defaults(PRESETS[preset])
    given = parser.parse_args(words)
    if given.method != "gan":
        raise UsageError(f"the configuration is for {given.method}, not for gan")
    values = given.as_dict()
    options, config = build(GanOptions, values), build(Config, values)
    if "--print_config" in argv:
        print(to_yaml(options) + to_yaml(config), end="")
        return
    place = given.folder or given.data
    if place is None:
        raise UsageError("which data? usage: leanet fit gan DATA [options]")
    data = Path(place)
    out = Path(given.out) if given.out else Path("runs") / f"{data.stem}-gan"
    earlier = on_earlier(resume=given.resume, overwrite=given.overwrite)
    run = gan_run.fit_gan(data, out, options, config, earlier=earlier)
    print(f"\nlook at {run / 'final' / 'sheet.png'}, then: leanet generate {run} --out FOLDER")
