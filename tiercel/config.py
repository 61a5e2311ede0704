"""Frozen settings, read once at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tiercel.errors import UsageError

Precision: TypeAlias = Literal["int8", "bf16", "fp16", "fp32"]
"""Number format that a model's matrix products are computed in."""

Backend: TypeAlias = Literal["onnxruntime", "openvino"]
"""What runs a model; `tiercel.models.forms` says which precisions each of them runs."""

TokenCodec: TypeAlias = Literal["fp16", "int8", "4bit", "2bit"]
"""How token vectors are kept, the most exact first: see `tiercel.index.residual`."""

OnDuplicate: TypeAlias = Literal["refuse", "last"]
"""What happens to an id that comes twice in what is added at once: nothing is added, or the last one counts."""

LongStrategy: TypeAlias = Literal["match", "first", "max", "sum", "top3", "extract"]
"""What a reranker reads of a document longer than its window: see `tiercel.rerankers.long_documents`."""

ScoreKind: TypeAlias = Literal["logit", "sigmoid"]
"""What a cross-encoder gives: its own number, of any size, or that brought between 0 and 1."""

CalibrationMethod: TypeAlias = Literal["platt", "isotonic"]
"""What is fitted to scores to make chances of them: see `tiercel.evaluation.calibration`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides, as against what a command's own arguments decide.

    Attributes:
        cache_dir: where exported models are kept (`TIERCEL_CACHE_DIR`, else the user's cache folder).
        offline: never ask a model hub (`TIERCEL_OFFLINE=1`, or `HF_HUB_OFFLINE=1`).
        provider: what runs the networks: `cpu`, `cuda`, `tensorrt`, or `auto`, the best that starts
            (`TIERCEL_PROVIDER`); refused where it is not there.
        threads: threads for encoding and search (`TIERCEL_THREADS`, else the processors this process may use).
    """

    cache_dir: Path
    offline: bool
    threads: int
    provider: str = "cpu"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the `TIERCEL_*` variables. Raises UsageError for a value that cannot be meant."""
        env = os.environ if environment is None else environment
        return cls(
            cache_dir=_cache_dir(env),
            offline=_flag(env, "TIERCEL_OFFLINE") or _flag(env, "HF_HUB_OFFLINE"),
            threads=_threads(env),
            provider=env.get("TIERCEL_PROVIDER") or "cpu",
        )


def _cache_dir(env: Mapping[str, str]) -> Path:
    if chosen := env.get("TIERCEL_CACHE_DIR"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tiercel", appauthor=False)


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"", "0", "false", "no", "off"}:
        return False
    raise UsageError(f"{name}={env[name]!r}", expected="1 or 0")


def _threads(env: Mapping[str, str]) -> int:
    value = env.get("TIERCEL_THREADS", "")
    if not value:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"TIERCEL_THREADS={value!r}", expected="a whole number of at least 1")
    return int(value)
