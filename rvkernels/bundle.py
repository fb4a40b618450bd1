"""A trained model as one file that `rvk predict` needs, and nothing else: for images that no study has seen.

A bundle is a zip archive of two members:

    best.npz      the checkpoint of the training (rvkernels/checkpoint.py)
    bundle.json   what it is and how it predicted: task, framework, model and its settings, classes with their colours,
                  bands, dtype of the pixels, mean and std per band, settings of the prediction; of the training the
                  dataset, seed, start, software with its commit, and what its best epoch measured

A bundle of a model of the user's own (rvkernels/own_model.py) names the module, which has to be there to predict.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1
ABOUT, CHECKPOINT = "bundle.json", "best.npz"
SPLIT = "image"  # what predictions of whole images have for the name of a split


def write(run: str | Path, out: str | Path) -> None:
    """Write the bundle of a training, atomically. The same run gives the same bytes.

    run  folder of `rvk train`, with the predictions of its study in it, whose settings the bundle takes

    Raises FileNotFoundError when the training is not finished or there is no prediction, ValueError for damaged ones.
    """
    from rvkernels.checkpoint import read_checkpoint
    from rvkernels.files import atomic, read_json
    from rvkernels.predictions import RECORD, Predictions

    run = Path(run)
    trained = read_checkpoint(run / CHECKPOINT)
    predictions = Predictions.read(run / "predictions")
    told = read_json(run / "predictions" / RECORD)["settings"]
    record = read_json(run / "record.json")
    if "classes" not in told:
        raise ValueError(f"{run / 'predictions'}: of an earlier rvkernels; remove that folder and run the study again")
    identity = trained.meta["identity"]
    about = {
        "format": FORMAT,
        **{key: identity[key] for key in ("task", "framework", "model", "model_settings")},
        "classes": told["classes"],
        "bands": identity["bands"],
        "dtype": told["dtype"],
        **{key: identity[key] for key in ("mean", "std")},
        "predict": predictions.settings,
        "trained": {
            **{key: identity[key] for key in ("dataset", "seed")},
            **{key: record[key] for key in ("started", "software")},
            "epoch": trained.meta["epoch"],
            "validation": trained.meta["metrics"],
        },
    }
    with atomic(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        # Weights do not compress. ZipInfo's default is a fixed time.
        archive.writestr(zipfile.ZipInfo(ABOUT), json.dumps(about, indent=1, allow_nan=False) + "\n")
        with (
            (run / CHECKPOINT).open("rb") as source,
            archive.open(zipfile.ZipInfo(CHECKPOINT), "w", force_zip64=True) as member,
        ):
            shutil.copyfileobj(source, member, 1 << 20)


def read_about(path: str | Path) -> dict[str, Any]:
    """What bundle.json says. Imports nothing numerical: which framework is to run is decided by it.

    FileNotFoundError when there is no such file; ValueError, naming it, when it is no bundle or one of another format.
    """
    with _archive(path) as archive:
        about = json.loads(archive.read(ABOUT))
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: a bundle of format {found}, expected {FORMAT}; read it with its rvkernels")
    return about


def predict(
    bundle: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    framework: str | None = None,
    threads: int = 0,
    device: str = "cpu",
    **settings: Any,
) -> list[Path]:
    """Predict whole images; write the folder `out` (rvkernels/predictions.py), whole; older predictions are replaced.

    images     rasters of any size that GDAL opens, with the bands and dtype of the training; each is a scene called as
               its file without the ending
    framework  that computes: None is the one that trained; another gives the same up to rounding
    threads    0: all cores
    settings   of rvkernels.predict.complete_settings, in place of the bundle's; None: as there

    Returns the files for people and GIS, sorted. Raises ValueError or FileNotFoundError, one line, before any
    prediction: no bundle, no image, another number of bands or dtype, two images of one name, a framework that is not
    installed, a folder `out` of something else.
    """
    from rvkernels import predictions, registry
    from rvkernels.predict import predict
    from rvkernels.scene import Region

    out = Path(out)
    if out.exists() and not (out / predictions.FILE).is_file():
        raise ValueError(f"{out}: is there and holds no predictions, which alone would be replaced; name a new folder")
    about = read_about(bundle)
    framework = framework or about["framework"]
    try:
        registry.load("frameworks", framework)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{bundle}: framework {framework} is not installed: no package {error.name}; `envs/setup.sh {framework}` "
            f"in the checkout installs it, or name another with --framework"
        ) from None
    scenes = _scenes(images, about, threads)
    with tempfile.TemporaryDirectory() as folder:
        with _archive(bundle) as archive:
            checkpoint = archive.extract(CHECKPOINT, folder)
        predict(
            framework=framework,
            model=about["model"],
            model_settings=about["model_settings"],
            task=about["task"],
            checkpoint=checkpoint,
            scenes={scene.id: scene for scene in scenes},
            regions=[Region(scene.id, 0, 0, scene.rows, scene.cols, SPLIT) for scene in scenes],
            statistics=about,
            classes=about["classes"],
            settings={**about["predict"], **{key: value for key, value in settings.items() if value is not None}},
            out=out,
            split=SPLIT,
            threads=threads,
            device=device,
            dataset=about["trained"]["dataset"],
            seed=about["trained"]["seed"],
        )
    hidden = {predictions.FILE, predictions.RECORD}
    return sorted(path for path in out.rglob("*") if path.is_file() and path.relative_to(out).as_posix() not in hidden)


def _scenes(images: Sequence[str | Path], about: dict[str, Any], threads: int) -> list:
    from rvkernels.chips import DTYPES
    from rvkernels.datasets._files import build, safe

    scenes = build([{"id": safe(Path(image).stem), "images": [str(image)]} for image in images], threads)
    paths: dict[str, str] = {}
    for scene in scenes:
        path = scene.images[0]
        if scene.id in paths:
            raise ValueError(f"{path}: is called {scene.id}, and so is {paths[scene.id]}; predict one after the other")
        paths[scene.id] = path
        bands = about["bands"]
        if scene.bands != len(bands):
            raise ValueError(
                f"{path}: it has {scene.bands} bands, but the model reads {len(bands)} ({', '.join(bands)}); write "
                f"a file of these in this order (gdal_translate -b)"
            )
        if DTYPES.get(scene.dtype) != DTYPES[about["dtype"]]:
            raise ValueError(
                f"{path}: its pixels are {scene.dtype}, but the model was trained on {about['dtype']}, and a pixel's "
                f"value has to mean the same; convert them as the training's were"
            )
    return scenes


@contextlib.contextmanager
def _archive(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """A bundle, opened. What is wrong with it while it is read is told as that."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; `rvk bundle` makes one of a training")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = sorted({ABOUT, CHECKPOINT} - set(archive.namelist()))
            if missing:
                raise ValueError(f"{path}: no bundle, as it has no {missing[0]}; `rvk bundle` makes one of a training")
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no bundle, or damaged: {error}; `rvk bundle` makes one of a training") from None
