"""A study, resolved: the configuration checked against its schema and against what the package has.

Snakemake's rules ask a Study for names, files and settings; no stage reads the study file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rvkernels import (
    bench_train,
    cache,
    chip,
    dataset,
    environment,
    own_model,
    predict,
    pretrained,
    registry,
    schema,
    split,
    timing,
    train,
    workers,
)
from rvkernels.files import atomic, read_json
from rvkernels.frameworks import check_arithmetic, complete_loss
from rvkernels.models import OwnModel

# Stages whose code is not in a module of their name.
MODULES = {"init": "pretrained"}
COMPILED = ("rvkernels._core", "rvkernels._raster")
# What the page and the post are made of besides code.
PAGE = ("page/*", "figures/*.mplstyle")


class Study:
    """What the rules of the workflow need to know.

    Made by `resolve`; `experiments` maps a name to its settings with every default filled in.
    """

    def __init__(self, config: dict, dataset_files: dict[str, str], sources: str | Path | None = None) -> None:
        self.config = config
        self._sources = sources
        self.name: str = config["study"]
        self.experiments: dict[str, dict] = config["experiments"]
        self.frameworks: list[str] = config["frameworks"]
        self.seeds: list[int] = config["seeds"]
        self.threads: int = config["threads"]
        self.workers: int = config["workers"]
        self.device: str = config["device"]
        self.mirror: str | None = config["mirror"]
        self.parts: dict[str, int] = config["parts"]
        self._dataset_files = dataset_files

    @classmethod
    def resolve(cls, config: dict, *, datasets: str | Path, sources: str | Path | None = None) -> Study:
        """Check `config` and fill in defaults.

        config      the study file's contents
        datasets    folder of the known datasets' descriptions; `dataset: NAME` means <datasets>/NAME.yaml, and
                    `dataset: path/to/mine.yaml` is a description of the user's own
        sources     the checkout whose code the jobs run, when it is not the installed one that this process runs
        Raises ValueError or FileNotFoundError, one line each, before any work.
        """
        config = schema.validate(config, schema.find("config.schema.yaml"), "study")
        for name in config["frameworks"]:
            if name not in registry.names("frameworks") or name == "reference":
                known = [n for n in registry.names("frameworks") if n != "reference"]
                raise ValueError(f"study: frameworks: no framework {name!r}; {registry.suggest(name, known)}")
        files = {}
        for name, experiment in config["experiments"].items():
            where = f"study: experiments: {name}"
            files[name] = _dataset_file(experiment["dataset"], datasets, where)
            description = dataset.load(files[name])
            task = experiment["task"]
            if task not in description["tasks"]:
                raise ValueError(
                    f"{where}: dataset {experiment['dataset']} has labels for {', '.join(description['tasks'])}, "
                    f"not for {task}"
                )
            form = registry.load("datasets", description["form"])
            registry.check_parameters(form.scenes, experiment["layout"], f"{where}: layout")
            experiment.setdefault("split", description.get("split", {"by": "scene"}))
            split.check_settings(experiment["split"], f"{where}: split")
            experiment["chip"] = chip.complete_settings(experiment["chip"], task, f"{where}: chip")
            experiment["train"] = _located(where, train.for_task, experiment["train"], task)
            _located(where, check_arithmetic, config["device"], experiment["train"]["precision"], config["threads"])
            for model, settings in experiment["models"].items():
                for framework in frameworks_of(model, settings, config["frameworks"]):
                    own = own_model.is_own(model, settings)
                    _located(where, workers.check, config["workers"], framework, experiment["train"], own=own)
                bands, classes = len(description["bands"]), len(description["classes"])
                graph = _located(f"{where}: models", train.build_graph, model, settings, task, bands, classes)
                if isinstance(graph, OwnModel) and not set(graph.entries) & set(config["frameworks"]):
                    raise ValueError(
                        f"{where}: models: {model} has entry points for {', '.join(graph.entries)}, but the study's "
                        f"frameworks are {', '.join(config['frameworks'])}"
                    )
                loss = experiment["train"]["loss"] or registry.load("tasks", task).LOSS
                if loss.get("class_weights") == "balanced":  # its weights are known when the chips are
                    loss = {**loss, "class_weights": [1.0] * classes}
                _located(where, complete_loss, loss, graph)
            _check_pretrained(experiment["pretrained"], experiment["models"], description, f"{where}: pretrained")
            window = {"size": experiment["chip"]["size"], **experiment["predict"]}
            experiment["predict"] = _located(where, predict.for_task, window, task)
        return cls(config, files, sources)

    @classmethod
    def read(cls, results: str | Path) -> Study:
        """The study whose results are in the folder results/<study>/, as the workflow last resolved it.

        Raises FileNotFoundError when no study has begun there.
        """
        found = sorted(Path(results).glob("settings/compare-*.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise FileNotFoundError(f"{results}: no study has begun here; name the study file, config/STUDY.yaml")
        settings = read_json(found[-1])
        # An older version's study lacks settings that came later.
        config = schema.validate(settings["study"], schema.find("config.schema.yaml"), str(found[-1]))
        return cls(config, settings["datasets"])

    def tell_jobs(self) -> None:
        """Set the environment variables that `rvk` reads in the jobs that this process starts.

        RVK_PARENT is this process: a job that outlives a killed snakemake would race with the job that the next one
        starts in its place, so `rvk` ends with it. RVK_MIRROR is the study's mirror unless it is set already. PATH gets
        the folder of this interpreter, so that jobs find the `rvk` beside a snakemake that was called by its path; a
        rule's conda environment still comes before it.
        """
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        os.environ["RVK_PARENT"] = str(os.getpid())
        if self.mirror:
            os.environ.setdefault("RVK_MIRROR", self.mirror)

    def dataset_file(self, experiment: str) -> str:
        """The description of the experiment's dataset."""
        return self._dataset_files[experiment]

    def check_files(self, results: str | Path) -> None:
        """Raise FileNotFoundError for all files at once that only a person can get, before any job.

        results     folder of the study's results: an experiment whose scenes are listed there had its files
        """
        needed = [
            self._dataset_files[name]
            for name in self.experiments
            if not Path(results, "data", name, "scenes.jsonl").is_file()
        ]
        cache.check_by_hand(dict.fromkeys(needed), self.config["downloads"], os.environ.get("RVK_MIRROR"))

    def pretrained_files(self, experiment: str, model: str) -> list[str]:
        """The file of weights that the model starts from, if it has one."""
        return [entry["file"] for name, entry in self.experiments[experiment]["pretrained"].items() if name == model]

    def split_file(self, experiment: str) -> list[str]:
        """The file of polygons that decide the split, if there is one."""
        chosen = self.experiments[experiment]["split"]
        return [chosen["file"]] if chosen["by"] == "vector" else []

    def runs(self) -> list[tuple[str, str, str, int]]:
        """(experiment, model, framework, seed) of every training run: own models where they have an entry point."""
        return [
            (name, model, framework, seed)
            for name, experiment in self.experiments.items()
            for model, settings in experiment["models"].items()
            for framework in frameworks_of(model, settings, self.frameworks)
            for seed in self.seeds
        ]

    def priority(self, experiment: str, model: str, framework: str, seed: str) -> int:
        """Rank of a training among all, at least 1: of those that could start, the one with the highest starts.

        Where one training runs at a time, all frameworks train one model with one seed one after another, each time in
        another order (rvkernels.timing.turned), and seed by seed, so that a machine that grows slower or faster
        favours none. Where there is room for several, none waits for another.
        """
        blocks: dict[tuple[int, str, str], list[str]] = {}
        for e, m, f, s in self.runs():
            blocks.setdefault((self.seeds.index(s), e, m), []).append(f)
        order = [
            (e, m, f, self.seeds[s])
            for number, ((s, e, m), frameworks) in enumerate(sorted(blocks.items(), key=lambda block: block[0][0]))
            for f in timing.turned(frameworks, number)
        ]
        return len(order) - order.index((experiment, model, framework, int(seed)))

    def measurements(self) -> list[bench_train.Measurement]:
        """Every record of the benchmark of training steps, in the order of the measurements."""
        return bench_train.measurements(self.config, self.runs())

    def bench_priority(self, experiment: str, model: str, framework: str, batch: str, round: str) -> int:
        """Rank of a measurement among `measurements`, at least 1: the highest is made first."""
        order = self.measurements()
        return len(order) - order.index((experiment, model, framework, int(batch), int(round)))

    def bench_code(self) -> str:
        """A digest of what `rvk bench` runs, compiled kernels and the calls of peers among it."""
        found = importlib.util.find_spec("rvkernels.bench")
        names = registry.names("bench") + [f"peers.{p.stem}" for p in Path(found.origin).parent.glob("peers/*.py")]
        return code_digest(
            "rvkernels.bench._run", *(f"rvkernels.bench.{name}" for name in names), sources=self._sources
        )

    def controls(self) -> list[tuple[str, str, str, int]]:
        """Of `runs`, those that are trained a second time with `control_threads`: the first of every model."""
        if not self.config["divergence_control"] or len(self.frameworks) == 1:
            return []
        first: dict[tuple[str, str], tuple[str, int]] = {}
        for experiment, model, framework, seed in self.runs():
            first.setdefault((experiment, model), (framework, seed))
        return [(*model, *run) for model, run in first.items()]

    @property
    def control_threads(self) -> int:
        """Another number of threads than `threads`, so that sums are taken in another order."""
        return 1 if self.threads > 1 else 2

    def settings_file(self, folder: str, stages: tuple[str, ...], **wildcards: str) -> str:
        """Path of a JSON file with what decides the result of a job: `settings` of its stages, written when missing.

        Its name holds a digest of its contents and of the code that the stages run, so that another setting, or an
        edit of what a stage imports or loads by name, gives another path: Snakemake then reruns those jobs alone.
        """
        text = json.dumps(self._settings(stages, **wildcards), indent=1)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = Path(folder) / f"{stages[0]}-{digest}.json"
        if not path.is_file():
            with atomic(path) as temporary:
                temporary.write_text(text)
        else:
            path.touch()  # the newest is the one in use
        return str(path)

    def _settings(self, stages: tuple[str, ...], **wildcards: str) -> dict[str, object]:
        names = {"model": "models", "framework": "frameworks"}
        modules = [f"rvkernels.{MODULES.get(stage, stage)}" for stage in stages]
        modules += [f"rvkernels.{names[k]}.{v}" for k, v in wildcards.items() if k in names]
        if "report" in stages:
            modules += [f"rvkernels.{kind}.{name}" for kind in ("figures", "charts") for name in registry.names(kind)]
        files = PAGE if {"report", "blog"} & set(stages) else ()
        result: dict[str, object] = {}
        if "experiment" in wildcards:
            experiment = self.experiments[wildcards["experiment"]]
            form = dataset.load(self._dataset_files[wildcards["experiment"]])["form"]
            if "fetch" in stages:
                modules.append(f"rvkernels.datasets.{form}")
                result.update(downloads=self.config["downloads"], layout=experiment["layout"])
            result["task"] = experiment["task"]
            if {"train", "predict", "evaluate"} & set(stages):
                modules.append(f"rvkernels.tasks.{experiment['task']}")
            for stage in stages:
                if stage in experiment:
                    result[stage] = experiment[stage]
            if "model" in wildcards:
                result["model"] = experiment["models"][wildcards["model"]]
                if "framework" in wildcards and own_model.is_own(wildcards["model"], result["model"]):
                    result["own_code"] = own_model.digest(result["model"][wildcards["framework"]], wildcards["model"])
                result["device"] = self.device
                if {"init", "train"} & set(stages):
                    result["pretrained"] = experiment["pretrained"].get(wildcards["model"])
            if "bench_train" in stages:
                result["bench_train"] = {key: self.config["bench_train"][key] for key in ("steps", "warmup")}
        elif "bench_table" in stages:
            result["measurements"] = self.measurements()
        else:
            result.update(study=self.config, datasets=self._dataset_files)
        result["code"] = code_digest(*modules, files=files, sources=self._sources)
        return result


def frameworks_of(model: str, settings: dict, frameworks: list[str]) -> list[str]:
    """Those of `frameworks` that `models: {model: settings}` means: of an own model those with an entry point."""
    return [name for name in frameworks if name in settings or not own_model.is_own(model, settings)]


def _dataset_file(name: str, datasets: str | Path, where: str) -> str:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise FileNotFoundError(f"{where}: dataset: no file {name}; the path is relative to the working directory")
        return name
    known = {p.stem: str(p) for p in Path(datasets).glob("*.yaml")}
    if name not in known:
        raise ValueError(f"{where}: dataset: no {name!r} in config/datasets/; {registry.suggest(name, known)}")
    return known[name]


def _check_pretrained(entries: dict, models: dict, description: dict, where: str) -> None:
    for model, entry in entries.items():
        if model not in models:
            raise ValueError(f"{where}: no model {model!r} in this experiment; {registry.suggest(model, models)}")
        if own_model.is_own(model, models[model]):
            raise ValueError(f"{where}: {model} is your own, and its factory makes its weights; load them there")
        pretrained.check_name(entry["file"], f"{where}: {model}")
        if not Path(entry["file"]).is_file():
            raise FileNotFoundError(
                f"{where}: {model}: no file {entry['file']}; the path is relative to the working directory"
            )
        bands = [band for band in entry.get("bands", []) if band is not None]
        for band in bands:
            if band not in description["bands"]:
                known = registry.suggest(band, description["bands"])
                raise ValueError(f"{where}: {model}: bands: the dataset has no band {band!r}; {known}")
            if bands.count(band) > 1:
                raise ValueError(f"{where}: {model}: bands: {band!r} is named twice")


def _located(where: str, function: Callable[..., Any], *given: object, **settings: object) -> Any:
    """function(...), with `where` before the message of its ValueError."""
    try:
        return function(*given, **settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def load(path: str) -> dict:
    """The study file's contents."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such study file")
    return schema.read(path)


@functools.cache
def code_digest(*modules: str, files: tuple[str, ...] = (), sources: str | Path | None = None) -> str:
    """A digest of `modules`, every rvkernels module they import (compiled kernels as well) and data files.

    files    patterns of them below rvkernels/
    sources  a checkout that jobs get a build of: its files are read instead of those that this process runs, and in the
             place of a compiled module all that it may be compiled from
    """
    root = Path(__file__).parents[1] if sources is None else Path(sources)
    paths = [path for pattern in files for path in root.glob(f"rvkernels/{pattern}")]
    seen: dict[str, bytes] = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    waiting = sorted(set(modules))
    while waiting:
        name = waiting.pop()
        source = None if name in seen else _source(name, sources)
        if source is not None:
            seen[name] = source
            names = [] if name in COMPILED else environment.imported(source)
            waiting += [name for name in names if name.startswith("rvkernels.")]
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + hashlib.sha256(seen[name]).digest())
    return digest.hexdigest()[:16]


def _source(name: str, sources: str | Path | None) -> bytes | None:
    """What a module of rvkernels is, None when there is no such module; see `code_digest`."""
    if name in COMPILED and sources is not None:
        return _compiled_from(Path(sources))
    if name in COMPILED:
        found = importlib.util.find_spec(name)
        return Path(found.origin).read_bytes() if found and found.origin else None
    root = Path(__file__).parents[1] if sources is None else Path(sources)
    stem = root.joinpath(*name.split("."))
    return next((p.read_bytes() for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


@functools.cache
def _compiled_from(checkout: Path) -> bytes:
    files = [checkout / "CMakeLists.txt", *sorted(p for p in checkout.glob("cpp/**/*") if p.is_file())]
    return b"".join(str(p.relative_to(checkout)).encode() + b"\0" + p.read_bytes() for p in files)
