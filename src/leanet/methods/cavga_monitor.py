"""Is a CAVGA training still well? What ends it, and what is only told.

A term that is not finite ends it: no further step mends the weights. Everything else is told
afterwards, in one sentence each, for the last epoch is reported whatever it is worth: a
discriminator that has won, a latent that says nothing (posterior collapse), a reconstruction that
does not get better, an attention that is stuck, at 1 or where it began, and, with weak labels, a
classifier that has learned nothing and so never opens the gate of the guided attention loss.

A discriminator that cannot tell reconstructions from images is the balance that training aims at,
so nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from leanet.training.journal import Record

LEAST_EPOCHS = 4  # below, a quarter of the training is not an epoch
LAST = 0.25  # share of the epochs that the end of a training is judged by
WON_REAL, WON_FAKE, WON_LOSS = 0.98, 0.02, 0.05  # both at once make a loss of 0.04; balance is 1.39
COLLAPSED_KL = 1e-3  # mean per element: mu within about 0.04 of 0, or the variance of 1
NOT_FALLEN = 0.98  # of the first epoch
WORSE_HELD_OUT = (
    1.1  # times the training's: of bce most is the entropy of the image, so this is much
)
SATURATED = 0.99  # the slope A (1 - A) of the sigmoid is 25 times smaller there than at 0.5
OF_ZERO, NEAR_ZERO = 0.5, 0.01  # sigmoid(0); a KL summed per image ends at 0.501
NEVER_OPEN = 0.01
EQUAL_ATTENTIONS = 0.01
MAJORITY = 7 / 8  # normal share of weak batches, of which an eighth is anomalous
BETTER = 0.02  # than the majority, in accuracy


class CavgaFailedError(ValueError):
    """A training that no more steps can mend; the message says what went wrong."""


def require_finite(
    values: Mapping[str, Tensor], order: Sequence[Sequence[int]], files: Sequence[Path], epoch: int
) -> None:
    """Refuse an epoch with a term that is not finite.

    Per term its steps [steps] of epoch `epoch`, counted from 0; the indices of the images of every
    step; the files of all samples. The first step is named, and there the first term in the order
    given: sums belong behind what they are made of.

    Raises:
        CavgaFailedError: says term, epoch, batch and files, and what to do.
    """
    stacked = torch.stack([steps.detach().double().cpu() for steps in values.values()])
    lost = (~torch.isfinite(stacked)).T.nonzero()  # rows (step, term), in rising order
    if not len(lost):
        return
    step, term = lost[0].tolist()
    name = list(values)[term].removeprefix("train_")
    names = ", ".join(str(files[i]) for i in order[step]) if files else str(list(order[step]))
    raise CavgaFailedError(
        f"the {name} term became {float(stacked[term, step])} in epoch {epoch + 1}, batch "
        f"{step + 1} of {len(order)} ({names}); try a lower --lr and --lr_disc, or --precision "
        "32-true"
    )


def warnings_of(
    records: Sequence[Record],
    weak: bool,
    kind: str = "R",
    norm: str = "sigmoid",
    majority: float = MAJORITY,
) -> list[str]:
    """What is worth knowing about a finished training, one sentence each; [] if all is well or it
    was shorter than `LEAST_EPOCHS`.

    `kind` of the encoder, R or D; `norm` of the attention; with weak labels, `majority` is the
    share of normal images in a batch.
    """
    if len(records) < LEAST_EPOCHS:
        return []
    told = [_discriminator(records), _latent(records), _reconstruction(records)]
    told += [_held_out(records)] if "val_reconstruction" in records[-1] else []
    if weak:
        told += [_gate(records), _classifier(records, majority), _guided_attention(records)]
    else:
        told += [_attention(records, norm)]
        told += [_never_fires(records)] if (kind, norm) == ("R", "sigmoid") else []
    return [sentence for sentence in told if sentence]


def _end(records: Sequence[Record], key: str) -> float:
    """The mean of an entry over the last quarter."""
    last = records[-max(1, int(LAST * len(records))) :]
    return float(sum(record[key] for record in last) / len(last))


def _discriminator(records: Sequence[Record]) -> str:
    if "d_real" not in records[-1]:  # trained without
        return ""
    real, fake = _end(records, "d_real"), _end(records, "d_fake")
    loss = _end(records, "train_adversarial")
    if not (real > WON_REAL and fake < WON_FAKE) and loss >= WON_LOSS:
        return ""
    return (
        f"the discriminator has won: in the last quarter it takes images for real with {real:.3f} "
        f"and reconstructions with {fake:.3f} (loss {loss:.3f}), so it has little left to teach; "
        "try a lower --lr_disc or --w_adv"
    )


def _latent(records: Sequence[Record]) -> str:
    kl = _end(records, "train_kl")
    if kl >= COLLAPSED_KL:
        return ""
    return (
        f"the latent says nothing about the image (posterior collapse: KL {kl:.1e} in the last "
        f"quarter, below {COLLAPSED_KL:.0e}), so every reconstruction is the same; try a lower "
        "--kl_weight"
    )


def _reconstruction(records: Sequence[Record]) -> str:
    first, last = float(records[0]["train_reconstruction"]), _end(records, "train_reconstruction")
    if last < NOT_FALLEN * first:
        return ""
    return (
        f"the reconstruction has hardly got better since the first epoch ({first:.4f} there, "
        f"{last:.4f} in the last quarter); try more --epochs, a higher --lr or a lower --w_adv"
    )


def _held_out(records: Sequence[Record]) -> str:
    seen, unseen = _end(records, "train_reconstruction"), _end(records, "val_reconstruction")
    if unseen <= WORSE_HELD_OUT * seen:
        return ""
    return (
        f"reconstructions of held-out normal images are worse than in training ({unseen:.4f} "
        f"against {seen:.4f} in the last quarter); try more --epochs, a larger --batch_size or a "
        "lower --w_adv"
    )


def _attention(records: Sequence[Record], norm: str) -> str:
    mean = _end(records, "attention")
    if mean > SATURATED:
        return (
            f"the attention is saturated (mean {mean:.4f} on training images, above {SATURATED}): "
            "its gradient is gone and the map may stay dark on anomalies; try a lower --w_ae or "
            "fewer --epochs"
        )
    if norm == "sigmoid" and abs(mean - OF_ZERO) < NEAR_ZERO:
        return (
            f"the attention has not spread (mean {mean:.3f} on training images, {OF_ZERO} is a "
            "map of zeros), so the map says little; try a higher --w_ae, a lower --kl_weight or "
            "more --epochs"
        )
    return ""


def _never_fires(records: Sequence[Record]) -> str:
    if records[-1].get("negative_share", 1.0) > 0:  # not there where it differs by image
        return ""
    return (
        "no channel has a negative weight in the attention (share 0.000) and no feature is below "
        "0, so the map can never exceed 0.5; try a lower --w_ae or fewer --epochs"
    )


def _gate(records: Sequence[Record]) -> str:
    share = _end(records, "gate_open")
    if share >= NEVER_OPEN:
        return ""
    return (
        f"the guided attention loss saw hardly an image (gate open for {share:.3f}): the "
        "classifier calls no normal image normal; try a higher --w_c or more --epochs"
    )


def _classifier(records: Sequence[Record], majority: float) -> str:
    accuracy = _end(records, "accuracy")
    if accuracy >= majority + min(BETTER, (1 - majority) / 2):
        return ""
    return (
        "the classifier is hardly better than always saying normal (training accuracy "
        f"{accuracy:.3f}, {majority:.3f} of a batch is normal); try a higher --w_c or "
        "--weak_fraction, or more --epochs"
    )


def _guided_attention(records: Sequence[Record]) -> str:
    normal, anomalous = _end(records, "attention_normal"), _end(records, "attention_anomalous")
    if normal > SATURATED and anomalous < 1 - SATURATED:
        return (
            f"both attentions are saturated (normal {normal:.4f}, anomalous {anomalous:.4f} on "
            "training images): their gradient is gone; try a lower --w_cga or fewer --epochs"
        )
    if abs(normal - anomalous) >= EQUAL_ATTENTIONS:
        return ""
    return (
        f"the two attentions are equal (normal {normal:.3f}, anomalous {anomalous:.3f} on training "
        "images), so the guided loss has not parted them; try a higher --w_cga or --w_c, or more "
        "--epochs"
    )
