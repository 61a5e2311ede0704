"""How is a model trained? Every setting, from a TOML file and from NAME=VALUE. Without torch: refusing is quick."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from tiercel.errors import InputError, UsageError

S = TypeVar("S", bound="TrainSettings")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What all families share.

    Attributes:
        seed: of the order, the draws and dropout; the same seed gives the same weights on one machine.
        epochs: how often every group is seen.
        batch_groups: groups in a step.
        negatives: most negatives of a group that a step reads, drawn anew each epoch.
        max_tokens: window of a text or pair; what is longer is cut. A cross-encoder is saved with it, all others with
            the window that they had. A Uni-Encoder's is that of a candidate.
        context_tokens: most tokens of a query that has a history, its earlier turns included; the oldest are cut first.
        learning_rate: AdamW's, at its height.
        warmup: share of the steps in which it rises from 0; afterwards it falls to 0 in a line.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        dropout: share of the numbers that every layer that drops some leaves out; drawing them is a third of a step's
            time on a CPU.
        precision: of the products: fp32, bf16 or (on a GPU) fp16; auto is bf16 where the processor multiplies in it
            and fp32 where it does not. The weights themselves are fp32.
        device: cpu or cuda.
        checkpoint_minutes: how often all is written down for --resume; 0: after every step.
        dev_steps: how often the dev measure is taken; 0: after every epoch.
        patience: training ends after so many dev measures without a new best; 0: after all epochs.
        label: the loss over labels: listwise, bce or none.
        distil: the loss over a teacher's scores: margin-mse, kl, mse or none.
        distil_weight: share of the distillation where there are both.
        temperature: of KL.
        teacher: which score is the teacher's: "teacher", or the name of a leg.
    """

    seed: int = 0
    epochs: int = 1
    batch_groups: int = 8
    negatives: int = 7
    max_tokens: int = 256
    context_tokens: int = 128
    learning_rate: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_minutes: float = 10.0
    dev_steps: int = 0
    patience: int = 0
    label: Literal["listwise", "bce", "none"] = "listwise"
    distil: Literal["margin-mse", "kl", "mse", "none"] = "none"
    distil_weight: float = 0.5
    temperature: float = 1.0
    teacher: str = "teacher"

    def __post_init__(self) -> None:
        for name, value in as_record(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{name} = {value}", expected="a finite number")
        for name in (
            "epochs",
            "batch_groups",
            "negatives",
            "max_tokens",
            "context_tokens",
            "learning_rate",
            "clip",
            "temperature",
        ):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} = {getattr(self, name)}", expected="a number above 0")
        for name in ("warmup", "distil_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} = {getattr(self, name)}", expected="a number from 0 to 1")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout = {self.dropout}", expected="a number from 0 to below 1")
        for name in ("weight_decay", "checkpoint_minutes", "dev_steps", "patience"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}", expected="0 or a number above it")
        if self.label == self.distil == "none":
            raise UsageError(
                "label and distil are both none", expected="a loss over labels, a teacher's scores, or both"
            )
        if self.precision == "fp16" and self.device == "cpu":
            raise UsageError("precision = fp16 on the cpu", expected="bf16 or fp32 there")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSettings(TrainSettings):
    """A cross-encoder's.

    Attributes:
        residual: the stage whose scores the network corrects, as mined groups call it: fused, bm25, minmax:late; "" for
            none. The correction starts at zero.
        layers: keep so many layers of the source, spread evenly from the first to the last; 0 for all.
    """

    residual: str = ""
    layers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BiSettings(TrainSettings):
    """A bi-encoder's.

    Attributes:
        in_batch: the label loss takes the documents of the other groups for negatives too.
        scale: cosines are multiplied by it.
    """

    in_batch: bool = True
    scale: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSettings(BiSettings):
    """A bi-encoder's that is adapted to a collection; `teacher` "" is the last stage of the index's own pipeline."""

    negatives: int = 3
    max_tokens: int = 128
    dev_steps: int = 50
    patience: int = 2
    distil: Literal["margin-mse", "kl", "mse", "none"] = "kl"
    distil_weight: float = 0.3
    teacher: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSettings(TrainSettings):
    """A late-interaction head's.

    Attributes:
        dimension: of the token vectors; at most the encoder's hidden size.
        frozen: train the head alone, over token vectors that are computed once.
        in_batch: the label loss takes the documents of the other groups for negatives too.
        scale: the score, a mean over query tokens, is multiplied by it.
        pca_texts: how many texts the head is fitted on at the start.
    """

    dimension: int = 128
    frozen: bool = True
    in_batch: bool = True
    scale: float = 20.0
    pca_texts: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings(TrainSettings):
    """A local-attention model's (TKL, SIGIR 2020).

    Attributes:
        layers: how many of the source's first layers are kept.
        fresh: these layers are drawn anew; the word embeddings stay.
        dimension: of the token vectors; at most the encoder's hidden size.
        mixer: share of the word embeddings in a vector, at the start.
        frozen: train the projection and the head alone, over vectors that are computed once.
        head_rate: the learning rate of the head's weights is so many times that of the others.
        scale: the score is multiplied by it.
        floor: sums of a kernel's activations count as at least so much.
        pca_texts: how many texts the projection is fitted on at the start.
    """

    max_tokens: int = 2048
    batch_groups: int = 4
    learning_rate: float = 1e-4
    layers: int = 2
    fresh: bool = False
    dimension: int = 128
    mixer: float = 0.5
    frozen: bool = True
    head_rate: float = 10.0
    scale: float = 1.0
    floor: float = 1e-10
    pca_texts: int = 200

    def __post_init__(self) -> None:
        # Of a class with slots, super() without arguments is the one of the class before it had them.
        super(LocalSettings, self).__post_init__()
        for name in ("layers", "dimension", "head_rate", "scale", "floor", "pca_texts"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} = {getattr(self, name)}", expected="a number above 0")
        if not 0 <= self.mixer <= 1:
            raise UsageError(f"mixer = {self.mixer}", expected="a number from 0 to 1")
        if self.fresh and self.frozen:
            raise UsageError("fresh with frozen", expected="frozen = false, as drawn layers have to learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilSettings(TrainSettings):
    """A DSE student's (AAAI 2020).

    Attributes:
        head: dot, a product of vectors, for recall; or concat, a network over [u, v, u*v, |u-v|], a cheap reranker.
        width: of that network's hidden layer.
    """

    label: Literal["listwise", "bce", "none"] = "none"
    distil: Literal["margin-mse", "kl", "mse", "none"] = "mse"
    head: Literal["dot", "concat"] = "dot"
    width: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class UniTrainSettings(TrainSettings):
    """A Uni-Encoder's (ACL Findings 2023).

    Attributes:
        mask: arrow, the paper's, where a context reads the candidates and scores are of those that are read together;
            or one-way, where it does not and a score is of one candidate alone.
        in_batch: every context is read with the documents of the other groups too, which the label loss takes for
            negatives.
    """

    max_tokens: int = 64
    context_tokens: int = 256
    negatives: int = 9
    mask: Literal["arrow", "one-way"] = "arrow"
    in_batch: bool = False

    @property
    def group_size(self) -> int:
        """With arrow, how many candidates are read together, in training as in use; 0 where that is of no account."""
        if self.mask == "one-way":
            return 0
        return (self.negatives + 1) * (self.batch_groups if self.in_batch else 1)


FAMILIES: Mapping[str, type[TrainSettings]] = {
    "cross": CrossSettings,
    "bi": BiSettings,
    "late": LateSettings,
    "local": LocalSettings,
    "distil": DistilSettings,
    "uni": UniTrainSettings,
}


def read_settings(kind: type[S], file: Path | None, given: Sequence[str] = ()) -> S:
    """Settings of a TOML file, then of `NAME=VALUE`, over the defaults; a value is as in TOML, or a bare word.

    Raises InputError (a file that cannot be read) and UsageError (a name that is not known, with a suggestion, or a
    value of another type or that cannot be meant).
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"it cannot be read ({error})", expected="a TOML file", where=str(file)) from error
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}", expected="NAME=VALUE, such as learning_rate=3e-5")
        values[name.strip()] = _value(value.strip())
    hints = get_type_hints(kind)
    return kind(**{name: _checked(name, value, hints, where=str(file or "--set")) for name, value in values.items()})


def as_record(settings: TrainSettings) -> dict[str, Any]:
    """Every setting by its name."""
    return dataclasses.asdict(settings)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, which values differ; how often a checkpoint is written decides nothing and does not count."""
    names = [name for name in {**before, **now} if name != "checkpoint_minutes"]
    return [
        f"{name} = {now.get(name)!r} (was {before.get(name)!r})" for name in names if now.get(name) != before.get(name)
    ]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(name: str, value: Any, hints: Mapping[str, Any], *, where: str) -> Any:
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1)
        raise UsageError(
            f"the setting {name!r} is not known",
            expected=f"{near[0]!r}?" if near else f"one of {', '.join(hints)}",
            where=where,
        )
    kind = hints[name]
    if choices := get_args(kind):
        if value in choices:
            return value
        raise UsageError(f"{name} = {value!r}", expected=f"one of {', '.join(choices)}", where=where)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{name} = {value!r}", expected=f"a value of type {kind.__name__}", where=where)
    return value
