"""Versions in the header of every test run, and what a test may ask for."""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Tests run beside other work; see rvkernels.environment.enter. To be set before anything numerical is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import numpy as np
import pytest

from rvkernels import weights as weight_files
from rvkernels.checkpoint import Checkpoint, write_checkpoint
from rvkernels.files import write_json
from rvkernels.record import machine
from rvkernels.train import build_graph

ROOT = Path(__file__).parents[1]

# The same examples every time: a failure that comes and goes helps nobody. Deadlines are off, machines differ.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("repeatable")

SHOWN = ("numpy", "gdal", "torch", "tensorflow", "tensorflow-cpu", "shapely", "snakemake")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def pytest_report_header() -> str:
    return "versions: " + ", ".join(f"{package} {version(package)}" for package in SHOWN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("nvidia-smi") is not None:
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine (nvidia-smi not found)"))


# Columns, and values of `quantity`, that no two runs have in common.
TIMES = ("_s", "_seconds", "_per_s", "rss_mb", "data_wait_share", "passes_share", "starts", "warmup_steps", "record")


@pytest.fixture(scope="session")
def untimed():
    """A function that returns the rows of a study's table without times, memory, starts and paths."""

    def rows(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as lines:
            kept = [row for row in csv.DictReader(lines) if not row.get("quantity", "").endswith(TIMES)]
        return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in kept]

    return rows


@pytest.fixture(scope="session")
def run_study():
    """A function that runs a study on this machine by workflow/run.sh and returns what that said; see _run_study."""
    return _run_study


def _run_study(directory: Path, *arguments: str | Path, study: str | Path = "config/smoke.yaml") -> str:
    """The study's results are below `directory`; `arguments` are snakemake's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [ROOT / "workflow/run.sh", "--configfile", ROOT / study, "--cores", "2", "--directory", directory]
    done = subprocess.run(
        [*map(str, command), *map(str, arguments)],
        env={**os.environ, "PATH": path}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A folder with the small study, finished on this machine without conda and without a cluster.

    RVK_SMOKE names one where it was finished with this checkout; it is left as it is: a copy saves a minute.
    """
    directory = tmp_path_factory.mktemp("a study")
    if finished := os.environ.get("RVK_SMOKE"):
        for made in ("results/smoke", ".snakemake/metadata"):
            shutil.copytree(Path(finished, made), directory / made)
    _run_study(directory)
    return directory


@pytest.fixture(scope="session")
def assert_same_study(untimed):
    """A function of two folders with finished small studies: but for times, tables, metrics and weights are equal."""

    def check(ours: Path, expected: Path) -> None:
        ours, expected = ours / "results/smoke", expected / "results/smoke"
        names = {path.name for path in (ours / "tables").glob("*.csv")}
        assert names >= {f"{n}.csv" for n in ("runs", "summary", "classes", "epochs", "margins")}
        # Times of training steps are no part of the study; its own tests add them.
        assert names == {path.name for path in (expected / "tables").glob("*.csv")} - {"bench_train.csv"}
        for name in names:
            assert untimed(ours / "tables" / name) == untimed(expected / "tables" / name), name
        assert untimed(expected / "tables/runs.csv")
        names = sorted(path.relative_to(expected) for path in expected.rglob("eval.json"))
        assert len(names) == 6
        for name in names:
            assert (ours / name).read_bytes() == (expected / name).read_bytes(), name
        names = sorted(path.relative_to(expected) for path in expected.rglob("best.npz"))
        assert len(names) == 3
        for name in names:
            with np.load(ours / name) as a, np.load(expected / name) as b:
                weights = [key for key in b.files if key.startswith("weights/")]
                assert weights
                assert all(np.array_equal(a[key], b[key]) for key in weights), name

    return check


@pytest.fixture
def made_run(tmp_path):
    """A function that writes the folder of a run as training, prediction and evaluation leave it, with made-up numbers.

    Returns the folder below tmp_path / "runs". `record` is merged into the record, `identity` into what the training
    kept of its start; `losses` are of every step, `validation` of the metric miou in every epoch.
    """
    return functools.partial(_write_run, tmp_path)


def _write_run(
    root: Path,
    experiment: str,
    model: str,
    framework: str,
    seed: int,
    miou: float | None,
    *,
    validated: bool = True,
    record: dict | None = None,
    identity: dict | None = None,
    losses: Sequence[float] = (2.5, 1.25),
    validation: Sequence[float] = (0.4, 0.6),
) -> Path:
    folder = root / "runs" / experiment / model / framework / str(seed)
    write_json(
        folder / "record.json",
        {
            "what": "train",
            "validated": validated,
            "dataset": "towns",
            "task": "segmentation",
            "result": {"best_epoch": 2, "steps": len(losses), "stopped_early": False},
            "times_s": {"train_epoch": [1.0, 2.0], "val_epoch": [0.25, 0.25], "step": [0.5, 0.01, 0.02]},
            "chips_per_s": 10.0 * (seed + 1),
            "peak_rss_mb": 100.0,
            "device": "cpu",
            "threads": 2,
            "machine": machine(),
            "software": {"rvkernels": "1.0", framework: "2.0"},
            **(record or {}),
        },
    )
    write_json(
        folder / "predictions" / "record.json",
        {"what": "predict", "validated": True, "times_s": {"network": [0.5, 0.5]}, "chips_per_s": 40.0},
    )
    item = {"class_id": 0, "class_name": "road", "gt_count": 7, "iou": miou, "metrics": {"f1": 0.5, "recall": None}}
    ece = None if miou is None else 1 - miou
    write_json(
        folder / "eval.json",
        {
            "overall": [item, {"class_name": "average", "metrics": {"f1": 0.5}}],
            "per_scene": {},
            "primary": "miou",
            "summary": {"overall": {"miou": miou, "ece": ece}, "per_scene": {}},
        },
    )
    if model == "baseline":
        return folder
    lines = [f"{i},0.1,2.5,{value},{i}.0" for i, value in enumerate(validation, 1)]
    (folder / "log.csv").write_text("\n".join(["epoch,lr,train_loss,val_miou,train_seconds", *lines, ""]))
    np.savez(folder / "steps.npz", loss=np.array(losses, np.float64))
    start = {
        "weights": f"{seed}" * 64,
        "chips": "c" * 64,
        "mean": [0.5],
        "std": [0.25],
        "model_settings": {"width": 8},
        "settings": {"batch": 2, "precision": "float32", "compile": False},
        **(identity or {}),
    }
    write_checkpoint(folder / "best.npz", Checkpoint({}, {"identity": start}))
    return folder


TRAINED = {
    "classification": ("cnn", {"width": 4, "blocks": 2}),
    "segmentation": ("unet", {"width": 4, "depth": 2}),
    "detection": ("detector", {"width": 4, "strides": [4, 8], "pyramid": 4, "tower": 0}),
}


def _write_chips(folder, task, splits):
    """Dark chips with a bright patch whose place and colour follow from the chip's number; class 1 is bright green."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    n = len(splits)
    images = rng.integers(20, 60, (n, 16, 16, 3), dtype=np.uint8)
    classes = np.arange(n) % 2
    labels = np.zeros((n, 16, 16), np.uint8)
    boxes = []
    for i, c in enumerate(classes):
        y, x = rng.integers(0, 9, 2)
        images[i, y : y + 8, x : x + 7, c] += 150
        labels[i, y : y + 8, x : x + 7] = 1
        boxes.append((y, x, y + 8, x + 7))
    np.save(folder / "images.npy", images)
    if task == "classification":
        np.save(folder / "labels.npy", classes.astype(np.int32))
    elif task == "segmentation":
        np.save(folder / "labels.npy", labels)
    else:
        np.save(folder / "boxes.npy", np.array(boxes, np.float32))
        np.save(folder / "box_class.npy", classes.astype(np.int32))
        np.save(folder / "box_start.npy", np.arange(n + 1, dtype=np.int64))
    with (folder / "chips.csv").open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["chip", "scene", "row", "col", "split"])
        table.writerows([i, "s", 0, 16 * i, s] for i, s in enumerate(splits))
    return images


@pytest.fixture
def study(tmp_path):
    """A function that writes chips, statistics and weights, and returns the arguments of rvkernels.train.Run."""
    return functools.partial(_write_training, tmp_path)


@pytest.fixture(scope="session")
def write_training():
    """The function of `study`, which takes the folder first."""
    return _write_training


def _write_training(
    root: Path,
    task: str = "classification",
    splits: Sequence[str] = ("train",) * 20 + ("val",) * 6 + ("test",) * 2,
    **settings: object,
) -> dict[str, object]:
    model, model_settings = TRAINED[task]
    images = _write_chips(root / "chips", task, splits)
    flat = images.reshape(-1, 3)
    (root / "statistics.json").write_text(json.dumps({"mean": flat.mean(0).tolist(), "std": flat.std(0).tolist()}))
    graph = build_graph(model, model_settings, task, 3, 2)
    weight_files.save(root / "weights.npz", weight_files.initial(graph, 1))
    return {
        "framework": "reference",
        "model": model,
        "model_settings": model_settings,
        "task": task,
        "classes": ["water", "field"],
        "bands": ["red", "green", "blue"],
        "chips": str(root / "chips"),
        "statistics": str(root / "statistics.json"),
        "weights": str(root / "weights.npz"),
        "settings": {"epochs": 3, "batch": 4, "augment": {"flip": True, "noise": 0.02}, **settings},
        "seed": 3,
        "out": str(root / "run"),
        "threads": 1,
        "dataset": "patches",
    }


@pytest.fixture(scope="session")
def training_by_rvk():
    """The class _Training: a training by `rvk train`."""
    return _Training


class _Training:
    """A training by `rvk train` in `framework`; every call has a folder below `root` for its results.

    arguments  of rvkernels.train.Run, as `study` makes them
    """

    def __init__(self, root: Path, framework: str, arguments: dict) -> None:
        self.root = root
        write_json(
            root / "settings.json",
            {
                "task": arguments["task"],
                "model": arguments["model_settings"],
                "device": "cpu",
                "train": arguments["settings"],
                "pretrained": None,
                "code": None,
            },
        )
        classes = ", ".join(f"{{ name: {name} }}" for name in arguments["classes"])
        (root / "patches.yaml").write_text(
            f"title: Patches\ntasks: [{arguments['task']}]\nform: towns\nclasses: [{classes}]\n"
            f"bands: [{', '.join(arguments['bands'])}]\nlicence: none\n"
        )
        self._options = [
            *("train", "--framework", framework, "--model", arguments["model"], "--seed", str(arguments["seed"])),
            *("--settings", root / "settings.json", "--dataset", root / "patches.yaml", "--threads", "1"),
            *("--chips", arguments["chips"], "--statistics", arguments["statistics"]),
            *("--weights", arguments["weights"]),
        ]

    def command(self, out: str, *options: str | Path) -> list[str | Path]:
        """The command line of rvk."""
        code = "import sys; from rvkernels.cli import main; sys.exit(main())"
        files = ["--log", f"{self.root / out}.log", *self._options, "--out", self.root / out]
        return [sys.executable, "-c", code, *files, *options]

    def start(self, out: str, *options: str | Path, **variables: str) -> subprocess.Popen:
        """Begun, with `variables` in its environment."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        return subprocess.Popen(
            self.command(out, *options),
            cwd=self.root, env={**environment, **variables}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, out: str, *options: str | Path) -> None:
        """To its end."""
        process = self.start(out, *options)
        _, errors = process.communicate(timeout=1800)
        assert process.returncode == 0, errors[-3000:]

    def losses(self, out: str) -> np.ndarray:
        """Of every step."""
        with np.load(self.root / out / "steps.npz") as steps:
            return steps["loss"]

    def record(self, out: str) -> dict:
        return json.loads((self.root / out / "record.json").read_text())


_DATASET = ROOT / "config/datasets/towns.yaml"
_STUDY = {
    "study": "made",
    "title": "",
    "downloads": "downloads",
    "frameworks": ["torch", "caffe2"],
    "seeds": [0, 1],
    "equivalence": {"miou": 0.02},
    "experiments": {
        "ground": {
            "task": "segmentation",
            "models": {"unet": {}},
            "target": 0.6,
            "train": {"metric": "miou"},
            "published_curve": {},
        }
    },
}


_LEAKS = {
    "chips": {"train": 30, "val": 10, "test": 20},
    "georeferenced": 45,
    "overlap": None,
    "duplicates": {
        "bits": 4,
        "correlation": 0.95,
        "pairs": [
            {"split": "val", "against": "train", "of": 10, "exact": 0, "near": 0},
            {"split": "test", "against": "train", "of": 20, "exact": 3, "near": 7},
            {"split": "test", "against": "val", "of": 20, "exact": 0, "near": 0},
        ],
        "examples": [],
    },
}


class InterruptedRunError(Exception):
    """Raised in the place of a kill."""


@pytest.fixture
def interrupt(monkeypatch):
    """A function that runs a training whose framework dies at a step, as a kill would do, but quickly."""

    def run(arguments, steps, framework=None):
        from rvkernels.frameworks import reference
        from rvkernels.train import Run

        framework = framework or reference.Framework
        count, step = itertools.count(), framework.step

        def dying(self, *given):
            if next(count) >= steps:
                raise InterruptedRunError
            return step(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(framework, "step", dying)
            with pytest.raises(InterruptedRunError):
                Run(**arguments).go()

    return run


@pytest.fixture(scope="session")
def write_leaks():
    """A function that writes what the splits of an experiment share into a study's folder."""
    return _write_leaks


def _write_leaks(root: Path, experiment: str) -> None:
    write_json(root / f"data/{experiment}/chips/leaks.json", _LEAKS)


@pytest.fixture(scope="session")
def make_study():
    """A function that makes a study below a folder, with its report; see _make_study."""
    return _make_study


def _make_study(
    root: Path,
    *,
    seeds: int = 2,
    control: float | None = 0.01,
    better: float = 0.002,
    figures: Sequence[str] = (),
    weight_identical: bool = True,
    bench: str | bool = False,
    experiment: str = "ground",
) -> tuple:
    """A study of two frameworks with made-up runs and its report: the results and the page."""
    # The tests of a framework with its own environment have this file too, but nothing of the report.
    from rvkernels import registry
    from rvkernels.compare import compare
    from rvkernels.report import report
    from rvkernels.results import Results

    names = registry.names
    steps = np.arange(250)
    for seed in range(seeds):
        for framework, factor, more, drift in (("torch", 1.0, 0.0, 0.0), ("caffe2", 2.0, better, 0.015)):
            folder = _write_run(root,
                experiment, "unet", framework, seed, 0.7 + 0.1 * seed + more * (1 + seed),
                losses=2.0 * np.exp(-steps / 100) * (1 + np.where(steps < 20, 1e-5, drift) * bool(drift)),
                validation=[0.5, 0.6 if framework == "torch" or seed == 0 else 0.55],
                identity={} if weight_identical else {"weights": f"made by {framework}"},
                record={
                    "weight_identical": weight_identical,
                    "result": {"steps": 250, "warmup_steps": 5, "step_median_s": 0.02 * factor, "passes_share": 0.75},
                    "software": {"python": "3.9" if framework == "caffe2" else "3.11", framework: "1.0"},
                },
            )  # fmt: skip
            seconds = np.where(steps < 5, 9.0, 0.02 * factor)
            with np.load(folder / "steps.npz") as kept:
                np.savez(folder / "steps.npz", loss=kept["loss"], seconds=seconds, since_start=steps)
    if control is not None:  # the first framework and seed again
        losses = 2.0 * np.exp(-steps / 100) * (1 + control)
        _write_run(root, "aside", "unet", "torch", 0, 0.7, losses=losses, record={"threads": 1}).rename(
            root / f"runs/{experiment}/unet/torch/0/control"
        )
    _write_run(root, experiment, "baseline", "logistic", 0, 0.5)
    settings = {**_STUDY, "seeds": list(range(seeds)), "bench": bench}
    settings["experiments"] = {experiment: _STUDY["experiments"]["ground"]}
    compare(root / "runs", root / "tables", settings)
    datasets = {experiment: str(_DATASET)}
    _write_leaks(root, experiment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "names", lambda kind: list(figures) if kind == "figures" else names(kind))
        report(root, settings, datasets, root / "figures", root / "report.html")
    return Results(root, settings, datasets), (root / "report.html").read_text()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, driven by playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
