from __future__ import annotations

from typing import Any

import pytest

from leanet.methods.cavga_config import PRESETS, Config


def make(**options: Any) -> Config:
    return Config(**options)


def test_the_defaults_are_those_that_the_documentation_gives() -> None:
    config = Config()
    assert (config.variant, config.latent, config.latent_channels) == ("R_u", "conv", 128)
    assert (config.recon, config.kl_weight, config.kl_reduction) == ("bce", 1, "element_mean")
    assert (config.attention_norm, config.attention_layer) == ("sigmoid", "last")
    assert (config.lr, config.lr_disc, config.batch_size) == (1e-4, 1e-4, 16)
    assert (config.epochs, config.min_steps, config.val_fraction) == (150, 3000, 0.1)
    assert (config.weak_fraction, config.weak_map, config.score) == (0.02, "ca", "mean")
    assert PRESETS["paper"]["pretrained"]


@pytest.mark.parametrize(
    ("variant", "kind", "weak"),
    [("R_u", "R", False), ("D_u", "D", False), ("R_w", "R", True), ("D_w", "D", True)],
)
def test_the_variant_says_which_layers_and_which_images(
    variant: Any, kind: str, weak: bool
) -> None:
    assert (make(variant=variant).kind, make(variant=variant).weak) == (kind, weak)


def test_attention_has_its_closed_form_where_there_is_one() -> None:
    assert make().path == make(variant="R_w", latent="flat").path == "closed"
    assert make(attention_path="autograd").path == "autograd"
    assert make(attention_layer="previous").path == "autograd"
    assert make(variant="D_w", head_hidden=4).path == "autograd"


def test_the_test_set_changes_for_weak_labels_and_for_comparisons_with_them_alone() -> None:
    assert make().weak_split is None
    weak = make(variant="D_w", weak_fraction=0.1).weak_split
    assert weak is not None
    assert (weak.fraction, weak.learn) == (0.1, True)
    control = make(variant="D_u", weak_test_split=True, weak_fraction=0.1).weak_split
    assert control is not None
    assert (control.fraction, control.learn) == (0.1, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "R"}, "allowed are R_u, R_w, D_u, D_w"),
        ({"attention_norm": "minmax"}, "nothing can be learned"),
        ({"weights": "a.pt", "pretrained": True}, "not both"),
        ({"variant": "R_w", "w_ae": 0.1}, "w_ae: variant R_w has no use"),
        ({"w_cga": 0.1}, "w_cga: variant R_u has no use"),
        ({"weak_fraction": 0.1}, "weak_fraction: variant R_u has no use"),
        ({"variant": "D_u", "pretrained": True}, "pretrained: variant D_u has no use"),
        ({"variant": "D_u", "stem_pool": False}, "stem_pool: variant D_u has no use"),
        ({"variant": "R_w", "weak_test_split": True}, "weak_test_split: variant R_w has no use"),
        ({"head_hidden": 4}, "head_hidden: variant R_u has no use"),
        ({"variant": "R_w", "weak_fraction": 0.0}, r"give a share in \(0, 1\]"),
        ({"val_fraction": 1.0}, r"give a share in \[0, 1\)"),
        ({"latent_channels": 0}, "give at least 1"),
        ({"epochs": 0}, "give at least 1, 0 and"),
        ({"batch_size": 1}, "give at least 1, 0 and"),
        ({"lr": 0.0}, "must be positive"),
    ],
)
def test_options_that_do_nothing_or_do_not_go_together_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
