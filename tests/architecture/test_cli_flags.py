"""The flags of the command line, which scripts and configuration files rely on.

A flag that is missing here has been added: name it. One that has gone breaks its users.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leanet.cli import VERBS
from leanet.methods.catalog import METHODS

EVERY_METHOD = """
    batch_size config data device epochs folds img_size inner_splits lr lr_schedule method normal
    out overwrite patience positives precision preset print_config resume seed skip_bad
    val_fraction
"""
SUPERVISED = """
    adn adn_args augment balance mean monitor pretrained std weight_decay weights
"""
FLAGS = {
    "demo": "out overwrite",
    "scan": "normal",
    "fit colorizer": EVERY_METHOD + "base dropout loss map_score pca_form pca_sigma",
    "fit classifier": EVERY_METHOD + SUPERVISED,
    "fit leanet": EVERY_METHOD
    + SUPERVISED
    + """
    aan aan_weight attention_points attention_strength decide learn_strength map_mode
    map_model.base map_model.batch_size map_model.dropout map_model.epochs map_model.loss
    map_model.lr map_model.lr_schedule map_model.map_score map_model.patience map_model.pca_form
    map_model.pca_sigma map_model.val_fraction strength_lr_mult
    """,
    "predict": "batch_size device maps no_heatmaps out overwrite skip_bad",
    "evaluate": "device normal out overwrite",
    "report": "baseline",
}


def test_the_table_names_every_verb_and_every_method() -> None:
    fits = {f"fit {method}" for method in METHODS}
    assert set(FLAGS) == (set(VERBS) - {"fit"}) | fits


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_these(command: str, flags_of: Callable[[str], frozenset[str]]) -> None:
    named = {f"--{name}" for name in [*FLAGS[command].split(), "help"]}
    given = flags_of(command)
    assert named - given == set(), "gone"
    assert given - named == set(), "new"
