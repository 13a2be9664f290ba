"""The tables of a recipe, which decides everything in a training run but its seed.

A recipe is complete: it has no defaults and inherits nothing. Without an optional key or table, such as `[drloc]`,
training leaves that part out.
"""

from dataclasses import dataclass
from typing import Any

from vtzoo.data.named import DATASETS

LOSSES = ("l1", "signed", "cross_entropy", "variance_aware", "every_stage", "off_grid")  # vtzoo.drloc has them
OPTIMIZERS = ("muon",)  # vtzoo.train.muon has it
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The architecture, and how it takes its images."""

    name: str  # a key of vtzoo.models.MODELS, or any timm architecture
    image_size: int  # pixels, the side of the square input
    crop_pct: float | None = None  # fraction of a test image's shorter side that the square crop keeps; absent is 1
    whitening: float | None = None  # noise variance of a whitening first layer; absent starts that layer at random
    arguments: dict[str, Any]  # to the architecture: patch_size, window_size, drop_path_rate...


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW's settings, or those of Muon with AdamW beside it."""

    name: str | None = None  # one of OPTIMIZERS; absent is AdamW
    batch_size: int  # images a step, over all devices
    learning_rate: float  # at its peak, for this batch size
    weight_decay: float  # on weight matrices; none on biases, norms and position tables
    betas: tuple[float, float]  # AdamW's
    clip_norm: float  # of the gradient; 0 never clips
    momentum: float | None = None  # Muon's Nesterov momentum; Muon requires these last three keys, AdamW refuses them
    iterations: int | None = None  # Newton-Schulz iterations, 1..7, that orthogonalize Muon's updates
    adamw_learning_rate: float | None = None  # peak rate of the parameters that Muon leaves to AdamW


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The length of training, the learning-rate schedule and the weight average (EMA)."""

    epochs: int  # that training runs
    warmup_epochs: float  # linear rise from 0
    cosine_epochs: int  # length of the cosine down to `final_learning_rate`: `epochs`, or more to stop before its end
    final_learning_rate: float
    ema_decay: float  # per update; the EMA weights are evaluated and published; 0 keeps no EMA
    ema_every: int | None = None  # steps between updates of the EMA; absent is 1


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A box of random size, shape and place, resized to the model's square (Szegedy et al. 2015)."""

    scale: tuple[float, float]  # smallest and largest fraction of the image's area
    ratio: tuple[float, float]  # smallest and largest width / height of the box


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Random color and geometric operations (Cubuk et al. 2020), with the meaning of timm's rand-m9-mstd0.5-inc1."""

    operations: int  # drawn per image, with replacement
    magnitude: float  # 0..10, the mean of a normal distribution
    magnitude_std: float  # its standard deviation
    probability: float  # of applying each drawn operation


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random changes to training images and labels, drawn per image and epoch."""

    crop_padding: int  # pixels of reflected border around the image, before a random crop of the original size
    random_resized_crop: RandomResizedCrop | None = None  # instead of a padded crop
    flip: bool  # half of the images, left to right; never for a data set whose row in vtzoo.data.named forbids it
    rand_augment: RandAugment | None = None
    color_jitter: float | None = None  # the largest relative change of brightness, contrast and saturation, 0..1
    mixup: float  # alpha of the Beta distribution; 0 for none
    cutmix: float  # likewise
    mix_probability: float  # of mixing an image at all
    erasing: float  # probability of filling a random rectangle with the mean colour
    erasing_noise: float | None = None  # standard deviation of normal noise in the rectangle, in normalized pixels
    label_smoothing: float


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained model of the same data set, whose logits are a second target (Hinton et al. 2015)."""

    name: str  # of the model and of its recipe
    weight: float  # of the teacher's targets, 0..1; the labels weigh 1 - weight
    temperature: float  # divides both models' logits


@dataclass(frozen=True, kw_only=True)
class Drloc:
    """The settings of dense relative localization, whose loss is in vtzoo.drloc."""

    weight: float  # of the localization loss, at its peak
    pairs: int  # per image
    loss: str | None = None  # one of LOSSES; absent is l1, the loss of the released code
    stage: int  # index of the grid, shallow to deep; -1 is the last; the loss every_stage begins there
    normalize: bool  # distances in grid sides instead of cells
    warmup_epochs: float  # the weight rises linearly from 0
    schedule_epochs: float  # the weight has fallen linearly to 0


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """The settings of fine-tuning a pretrained model on a user's labelled images."""

    source: str  # name of the pretrained model
    weights: str  # sha256 of its model.safetensors
    images: int  # training images
    multi_label: bool  # an image may have several classes: a sigmoid per class instead of one softmax
    head_only: bool  # L-BFGS fits the head to fixed features
    head_epochs: int  # with a frozen backbone, at the peak learning rate, before the schedule's epochs
    layer_decay: float  # factor of the learning rate from each layer to the layer below
    look_epochs: int  # between evaluations on the validation images; the run keeps the best weights
    patience: int  # evaluations without improvement that end the run


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run but its seed."""

    name: str  # <model>-<objective>-<dataset>, the stem of the file
    dataset: str  # a key of vtzoo.data.named.DATASETS; for fine-tuning the name of the user's images
    precision: str  # one of PRECISIONS, of the forward pass under autocast
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    augmentation: Augmentation
    teacher: Teacher | None = None  # None trains on the labels alone
    drloc: Drloc | None  # None is the baseline, which builds no localization head
    finetune: Finetune | None = None  # None trains from scratch

    @property
    def objective(self) -> str:
        """The middle part of the name: "drloc" or "baseline"."""
        return "drloc" if self.drloc else "baseline"

    @property
    def steps(self) -> int:
        """The optimizer steps of the whole run; an epoch drops the images after its last whole batch."""
        epochs = self.schedule.epochs + (self.finetune.head_epochs if self.finetune else 0)
        return epochs * (self.images // min(self.optimizer.batch_size, self.images))

    @property
    def images(self) -> int:
        """The number of training images: of the named data set, or of the user's images in fine-tuning."""
        return self.finetune.images if self.finetune else DATASETS[self.dataset].train
