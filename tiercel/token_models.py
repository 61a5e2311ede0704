"""Which model makes vectors of tokens? Names, and what an index says about its own, to loaded encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tiercel.config import Precision, Settings
from tiercel.errors import IndexStoreError

if TYPE_CHECKING:
    from tiercel.index.manifest import TokensRecord
    from tiercel.models.description import ModelDescription, ModelFamily
    from tiercel.protocols import TokenEncoder


class TokenModel(NamedTuple):
    """A loaded model, and what its export says about it."""

    encoder: TokenEncoder
    about: ModelDescription


def named_token_model(
    name: str,
    *,
    settings: Settings,
    family: ModelFamily | None = None,
    precision: Precision | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TokenModel:
    """A model by name, folder or hub name, exported first if need be.

    `family` is that of a model that is to be exported: by default late-interaction, of a bundled one encoder. An
    exported folder says its own. Raises ModelError where it cannot be had or gives no vectors of tokens.
    """
    from tiercel.models.forms import Wanted
    from tiercel.models.zoo import known_names, prepare_model

    usual: ModelFamily = "encoder" if name in known_names() else "late-interaction"
    folder = prepare_model(
        name,
        family=stated_family(name) or family or usual,
        wanted=Wanted(precision, provider=settings.provider),
        cache_dir=settings.cache_dir,
        offline=settings.offline,
        progress=say,
    )
    return _opened(folder, settings)


def stored_token_model(path: Path, record: TokensRecord, *, settings: Settings) -> TokenEncoder:
    """The late-interaction model that made the token vectors of the index at this path.

    Raises IndexStoreError where the model of its name is another one now, ModelError where it cannot be had.
    """
    from tiercel.models.zoo import find_exported

    folder = find_exported(record.fingerprint, cache_dir=settings.cache_dir)
    if folder is not None:
        return _opened(folder, settings).encoder
    return made_tokens(
        path, record, named_token_model(record.name, settings=settings, precision=record.precision).encoder
    )


def made_tokens(path: Path, record: TokensRecord, encoder: TokenEncoder) -> TokenEncoder:
    """The encoder again, once it is known to have made the token vectors of the index; else IndexStoreError."""
    if encoder.fingerprint != record.fingerprint:
        raise IndexStoreError(
            f"the model {record.name!r} has the fingerprint {encoder.fingerprint} for tokens",
            where=str(path),
            expected=f"{record.fingerprint}, of what made its token vectors ({record.name}, {record.precision})",
            next_step="Vectors of two models cannot be compared: bring the first one back, or build the index again.",
        )
    return encoder


def lasting_name(name: str) -> str:
    """What an index calls a model: a folder by its whole path, so that it is found from anywhere."""
    from tiercel.models.zoo import known_names

    return str(Path(name).resolve()) if name not in known_names() and Path(name).is_dir() else name


def stated_family(name: str) -> ModelFamily | None:
    """The family that a bundled model or a folder says of itself, exported or not; None for any other name.

    Only late interaction, local attention and a Uni-Encoder are told from a folder that is not exported. Raises
    ModelError where it is damaged.
    """
    from tiercel.models.description import is_exported, read_description
    from tiercel.models.export_late_interaction import is_late
    from tiercel.models.local_attention import is_local
    from tiercel.models.uni_checkpoint import is_uni_encoder
    from tiercel.models.zoo import bundled_folder

    folder = bundled_folder(name) or Path(name).expanduser()
    if is_exported(folder):
        return read_description(folder).family
    if is_local(folder):
        return "local-attention"
    if is_uni_encoder(folder):
        return "uni-encoder"
    return "late-interaction" if folder.is_dir() and is_late(folder) else None


def _opened(folder: Path, settings: Settings) -> TokenModel:
    from tiercel.models.description import read_description

    about = read_description(folder)
    if about.family == "encoder":
        from tiercel.models.encoder import OnnxEncoder

        return TokenModel(OnnxEncoder(folder, provider=settings.provider, threads=settings.threads).tokens, about)
    from tiercel.models.token_encoder import OnnxTokenEncoder

    return TokenModel(OnnxTokenEncoder(folder, provider=settings.provider, threads=settings.threads), about)
