"""The flags of the command line, which scripts and configuration files rely on.

A flag that is missing here has been added: name it. One that has gone breaks its users.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leanet.cli import VERBS
from leanet.methods.catalog import METHODS

ADVERSARIAL = """
    batch_size config data device epochs folds img_size inner_splits lr method normal
    out overwrite positives precision preset print_config resume seed skip_bad
    test_fraction val_fraction
"""
EVERY_METHOD = ADVERSARIAL + "lr_schedule patience"  # that minimizes one loss
SUPERVISED = """
    adn adn_args augment balance draw keep_positive mean monitor norm_batches num_outputs pretrained
    std tries val_anomalous weight_decay weights
    generated generated_share synthetic synthetic_share textures
"""
RECONSTRUCTION = """
    base draws dropout inpaint_masks loss map_headroom map_metric map_quantile map_score model
    monitor pca_form pca_sigma task
"""
FROZEN = """
    backbone backbone_args blur_sigma config crop data device feature_indices folds img_size
    inner_splits mean method normal out overwrite positives precision preset pretrained print_config
    resume seed skip_bad std test_fraction val_fraction weights
"""
ADFA = """
    alpha amsgrad bank_mean batch_size block cmax drop_last eca eca_factor eca_kernel eca_second
    epochs eps gamma_c gamma_d hard_negatives image_score k kl_weight loss lr lr_schedule max_steps
    nu radius radius_learnable score top_pixels topk topk_scale weight_decay
"""
PROGRAM = """
    GPU batch_size config dataset epochs fold img_size lr n_splits overwrite patience precision
    preset print_config resume save_path seed
"""
FLAGS = {
    "demo": "out overwrite",
    "unpack": "every out overwrite",
    "scan": "normal",
    "fit colorizer": EVERY_METHOD + RECONSTRUCTION,
    "fit reconstruction": EVERY_METHOD + RECONSTRUCTION,
    "fit cavga": ADVERSARIAL
    + """
    adv_mode anomaly_map attention_layer attention_norm attention_path dcgan_weights disc_head flip
    head_hidden kl_reduction kl_weight latent latent_channels latent_draws lr_disc min_steps
    pretrained recon recon_on_anomalous rotate90 score stem_pool variant w_adv w_ae w_c w_cga w_r
    weak_fraction weak_map weak_test_split weights
    """,
    "fit adfa": FROZEN + ADFA,
    "fit cfa": FROZEN + ADFA,
    "fit patchcore": FROZEN + "coreset max_candidates neighbors projection_eps",
    "fit padim": FROZEN + "channels ridge",
    "fit anomalib": """
    checkpoint config data device folds img_size inner_splits method model normal out overwrite
    positives precision preset print_config resume seed skip_bad test_fraction trained_on
    """,
    "fit classifier": EVERY_METHOD
    + SUPERVISED
    + """
    attach attention backbone_lr_mult bias blocks classes dropout min_hidden placement ratio stages
    start stem transfer_from transfer_weight
    """,
    "fit leanet": EVERY_METHOD
    + SUPERVISED
    + """
    aan aan_weight adn_input attention attention_temperature correction map_prior prior_pull
    tuned_epochs tuned_from
    attention_contrast attention_fuse attention_points attention_pool
    attention_sigmoid attention_strength decide learn_strength map_mode self_attention
    strength_nonneg
    map_model.base map_model.batch_size map_model.draws map_model.dropout map_model.epochs
    map_model.inpaint_masks map_model.loss map_model.lr map_model.lr_schedule
    map_model.map_headroom map_model.map_metric map_model.map_quantile map_model.map_score
    map_model.model map_model.monitor map_model.patience map_model.pca_form map_model.pca_sigma
    map_model.task map_model.val_fraction map_options map_source strength_lr_mult
    map_ablation map_binarize map_blur map_threshold map_top_fraction
    """,
    "fit gan": """
    batch_size config data device ema flip folds img_size look_every lr lr_discriminator method
    mode_seeking normal nuisance only out overwrite policy precision preset print_config r1 resume
    seed skip_bad snapshot_every steps test_fraction val_fraction width
    """,
    "fit dcgan": """
    batch_size config data device epochs limit lr lr_discriminator method out overwrite precision
    preset print_config resume seed sheet_every skip_bad snapshot_every
    """,
    "phase1": PROGRAM
    + """
    groups inner_splits loss map_dtype map_headroom map_metric map_mode map_quantile model monitor
    num_workers pca_form pca_sigma skip_bad task
    """,
    "phase2": PROGRAM
    + """
    aan_weight additional_module attention_points attention_strength early_stop input_method
    keep_positive legacy_gt model_AAN model_ADN num_outputs output_method pretrained
    rescale_legacy val_fraction w_lr_mult w_nonneg weights
    """,
    "predict": "batch_size device engine maps maps_from no_heatmaps out overwrite skip_bad",
    "evaluate": "detection_curve device normal out overwrite transductive",
    "threshold": """
    back calibration confident cost f1 max_false_alarm max_miss prevalence reset review value
    """,
    "explain": """
    alpha also aug_smooth batch_size blend class cmap device eigen_smooth faithfulness head images
    layer list_layers map_source masks methods normal out overwrite scale skip_bad target
    """,
    "compare": "out",
    "export": "data format int8 normal out overwrite",
    "generate": """
    anomalies backbone device drop_copies features features_run img_size normal out overwrite
    per_class per_image seed severity step textures
    """,
    "serve": """
    config database device engine host hosts images keep max_batch max_batch_bytes max_bytes
    max_files max_pixels max_wait_ms port print_config queue state token who
    """,
    "watch": "device engine interval move once out settle",
    "benchmark": "data_root out overwrite ray workers",
    "report": "baseline gif tables",
}


def test_the_table_names_every_verb_and_every_method() -> None:
    fits = {f"fit {method}" for method in (*METHODS, "gan", "dcgan")}
    assert set(FLAGS) == (set(VERBS) - {"fit"}) | fits


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_these(command: str, flags_of: Callable[[str], frozenset[str]]) -> None:
    named = {f"--{name}" for name in [*FLAGS[command].split(), "help"]}
    given = flags_of(command)
    assert named - given == set(), "gone"
    assert given - named == set(), "new"
