"""rvk: one verb per stage. A verb reads files, calls one function and writes files.

--settings is a JSON file that the workflow's rules make (rvkernels.study.Study.settings_file): a stage's settings under
its name, besides "task", "model" (the model's settings), "device" and "downloads".
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rvkernels import __version__, environment

if TYPE_CHECKING:
    from rvkernels.parts import Part
    from rvkernels.train import Run

Arguments = argparse.Namespace

# Settings of a prediction (rvkernels.predict.complete_settings) that `rvk predict` takes in place of the bundle's.
PREDICT_SETTINGS = {
    "size": (int, "rows and columns of a window in pixels"),
    "stride": (int, "pixels between windows"),
    "batch": (int, "windows per batch"),
    "views": (int, "1, 4 or 8: as it is, mirrored, turned"),
    "score_show": (float, "detection: least score of a box that is shown"),
    "nms_iou": (float, "detection: of boxes that overlap more, the better is kept"),
}


def fetch(a: Arguments) -> None:
    """verify and list a dataset's files"""
    from rvkernels.fetch import fetch

    s = a.settings
    mirror = os.environ.get("RVK_MIRROR")
    fetch(a.dataset, s["downloads"], mirror, a.out, task=s["task"], layout=s["layout"], threads=a.threads)


def split(a: Arguments) -> None:
    """decide which pixels are for training, validation and test"""
    from rvkernels.scene import read_scenes, write_regions
    from rvkernels.split import split

    write_regions(a.out, split(read_scenes(a.scenes), a.settings["split"]))


def analyze(a: Arguments) -> None:
    """statistics of bands over the training regions"""
    from rvkernels.analyze import analyze

    analyze(a.scenes, a.regions, out=a.out, threads=a.threads)


def chip(a: Arguments) -> None:
    """cut chips with their labels"""
    from rvkernels.chip import chip

    s = a.settings
    files = (a.dataset, a.scenes, a.regions)
    chip(*files, task=s["task"], settings=s["chip"], out=a.out, threads=a.threads, part=a.part)


def gather_chips(a: Arguments) -> None:
    """the chips of all parts, as one job cuts them"""
    from rvkernels.chip import gather

    gather(a.dataset, a.scenes, a.parts, task=a.settings["task"], settings=a.settings["chip"], out=a.out)


def init(a: Arguments) -> None:
    """initial weights, the same for every framework"""
    from rvkernels import dataset, pretrained, weights
    from rvkernels.train import build_graph

    description = dataset.load(a.dataset)
    bands, classes = description["bands"], description["classes"]
    graph = build_graph(a.model, a.settings["model"], a.settings["task"], len(bands), len(classes))
    weights.save(a.out, pretrained.initial(graph, a.seed, image_bands=bands, **(a.settings["pretrained"] or {})))


def _run(a: Arguments) -> Run:
    """The training that the arguments describe."""
    from rvkernels import dataset
    from rvkernels.train import Run

    description = dataset.load(a.dataset)
    return Run(
        framework=a.framework,
        model=a.model,
        model_settings=a.settings["model"],
        task=a.settings["task"],
        classes=dataset.class_names(description),
        bands=description["bands"],
        chips=a.chips,
        statistics=a.statistics,
        weights=a.weights,
        settings=a.settings["train"],
        seed=a.seed,
        out=a.out,
        threads=a.threads,
        device=a.settings["device"],
        dataset=description["name"],
        pretrained=a.settings["pretrained"],
        code=a.settings["code"],
        count=a.workers if "workers" in a else 1,
    )


def train(a: Arguments) -> int:
    """train a model, or go on where a killed training stopped"""
    from rvkernels import workers

    seat = workers.seat(os.environ)
    if seat is None and a.workers > 1:
        return _train_together(a)
    if seat is None:
        _run(a).go()
        return 0
    if a.workers not in (1, seat.count):
        raise ValueError(f"--workers is {a.workers}, but the environment makes this one of {seat.count} workers")
    a.workers = seat.count
    if a.settings["device"] == "cuda":
        workers.take_device(seat, os.environ)
    run = _run(a)
    with workers.meet(seat, run.digest()) as team:
        run.go(team)
    return 0


def _train_together(a: Arguments) -> int:
    """Start the workers on this machine, after all is checked that can be without them. The status to exit with."""
    from rvkernels import workers
    from rvkernels.progress import tell_error

    if a.settings["device"] == "cuda":
        workers.check_devices(a.workers, os.environ)
    run = _run(a)
    os.environ["RVK_MEETING"] = f"127.0.0.1:{workers.free_port()}"
    os.environ["RVK_PARENT"] = str(os.getpid())  # a worker ends when this process is gone
    # As `rvk`, wherever the package is: with -c the working directory would be looked at first.
    code = "import sys; sys.path[:] = filter(None, sys.path); from rvkernels.cli import main; raise SystemExit(main())"
    failed = run.framework.launch(a.workers, [sys.executable, "-c", code, *a.arguments])
    if not failed:
        return 0
    if set(failed.values()) == {2}:
        return 2  # each has told its own
    tell_error(f"rvk train: error: {workers.ended(failed, a.workers)}")
    return 1


def bench_train(a: Arguments) -> None:
    """time training steps of one framework on synthetic batches"""
    from rvkernels.bench_train import bench_train

    bench_train(_run(a), batch=a.batch, number=a.round, out=a.out, **a.settings["bench_train"])


def bench_table(a: Arguments) -> None:
    """the times of training steps of all frameworks in one table"""
    from rvkernels.bench_table import bench_table
    from rvkernels.bench_train import Measurement

    bench_table(a.records, [Measurement(*m) for m in a.settings["measurements"]], a.out)


def predict_regions(a: Arguments) -> None:
    """predict the test regions with a trained model"""
    from rvkernels import dataset
    from rvkernels.files import read_json
    from rvkernels.predict import predict
    from rvkernels.scene import read_regions, read_scenes

    description = dataset.load(a.dataset)
    predict(
        framework=a.framework,
        model=a.model,
        model_settings=a.settings["model"],
        task=a.settings["task"],
        checkpoint=a.run_folder / "best.npz",
        scenes=read_scenes(a.scenes),
        regions=read_regions(a.regions),
        statistics=read_json(a.statistics),
        classes=description["classes"],
        settings=a.settings["predict"],
        out=a.out,
        threads=a.threads,
        device=a.settings["device"],
        dataset=description["name"],
        seed=a.seed,
        part=a.part,
    )


def gather_predictions(a: Arguments) -> None:
    """the predictions of all parts, as one job writes them"""
    from rvkernels import dataset
    from rvkernels.predict import gather
    from rvkernels.scene import read_regions, read_scenes

    gather(
        a.parts,
        task=a.settings["task"],
        scenes=read_scenes(a.scenes),
        regions=read_regions(a.regions),
        classes=dataset.load(a.dataset)["classes"],
        settings=a.settings["predict"],
        out=a.out,
        threads=a.threads,
    )


def baseline(a: Arguments) -> None:
    """fit and apply the logistic regression that every network has to beat"""
    from rvkernels import dataset
    from rvkernels.baseline import baseline
    from rvkernels.scene import read_regions, read_scenes

    description = dataset.load(a.dataset)
    baseline(
        task=a.settings["task"],
        chips=a.chips,
        scenes=read_scenes(a.scenes),
        regions=read_regions(a.regions),
        classes=description["classes"],
        predict_settings=a.settings["predict"],
        out=a.out,
        threads=a.threads,
        dataset=description["name"],
    )


def evaluate(a: Arguments) -> None:
    """every metric of a run's predictions"""
    from rvkernels import dataset
    from rvkernels.evaluate import evaluate
    from rvkernels.scene import read_scenes

    labels = a.settings["chip"]
    evaluate(
        predictions=a.predictions,
        scenes=read_scenes(a.scenes),
        classes=dataset.load(a.dataset)["classes"],
        out=a.out,
        background=labels["background"],
        all_touched=labels["all_touched"],
        min_share=labels["min_cover"],
        min_area=labels["min_area"],
        nodata_max=labels["nodata_max"],
        threads=a.threads,
        part=a.part,
    )


def gather_evaluation(a: Arguments) -> None:
    """every metric of a run's predictions, from the counts of all parts"""
    from rvkernels import dataset
    from rvkernels.evaluate import gather

    gather(a.parts, predictions=a.predictions, classes=dataset.load(a.dataset)["classes"], out=a.out)


def compare(a: Arguments) -> None:
    """all runs of a study in tables"""
    from rvkernels.compare import compare

    compare(a.runs, a.out, a.settings["study"])


def compare_studies(a: Arguments) -> None:
    """what two studies differ in: settings, versions, machine, data, and with intervals quality and cost"""
    from rvkernels.compare_studies import check_out, compare_studies, show, write

    if a.out:
        check_out(a.out)
    difference = compare_studies(a.a, a.b)
    show(difference)
    if a.out:
        write(difference, a.out)


def report(a: Arguments) -> None:
    """the report: one page, and every figure as SVG, PNG and CSV"""
    from rvkernels.report import report

    report(a.results, a.settings["study"], a.settings["datasets"], a.figures, a.out, threads=a.threads)


def blog(a: Arguments) -> None:
    """the blog post: kramdown, its figures, and the source of every number"""
    from rvkernels.blog import blog

    blog(a.results, a.settings["study"], a.settings["datasets"], a.figures, a.out)


def export(a: Arguments) -> None:
    """a trained model as files of a framework, usable without rvkernels"""
    from rvkernels.export import export

    export(a.run_folder, a.to, a.out, normalise=a.normalise)


def bundle(a: Arguments) -> None:
    """a trained model as one file that `rvk predict` needs"""
    from rvkernels import bundle

    bundle.write(a.run_folder, a.out)


def predict(a: Arguments) -> None:
    """predict whole images of one's own with a bundle"""
    from rvkernels import bundle

    settings = {key: getattr(a, key) for key in PREDICT_SETTINGS}
    options = {"framework": a.framework, "threads": a.threads, "device": a.device}
    for path in bundle.predict(a.bundle, a.images, a.out, **options, **settings):
        print(path)


def convert_weights(a: Arguments) -> None:
    """a state_dict of torchvision's or timm's ResNet as weights to start from"""
    from rvkernels.pretrained import convert

    convert(a.source, a.out)


def logs(a: Arguments) -> None:
    """the logs of a study's trainings, steps and epochs, for TensorBoard or as CSV"""
    from rvkernels.logs import write_logs

    print(f"{write_logs(a.results, a.to, a.out)} trainings in {a.out}")


def watch(a: Arguments) -> None:
    """show how far a study is: stages, trainings with their curves, resources, time left"""
    from rvkernels.serve import serve
    from rvkernels.watch import watch

    os.nice(19)  # the study comes first: its step times are measured
    if a.serve is None:
        watch(a.study, once=a.once, every=a.every)
    else:
        serve(a.study, port=a.serve, every=a.every)


def bench(a: Arguments) -> int:
    """time kernels against the fastest alternatives, after checking both"""
    from rvkernels.bench._run import bench

    records = bench(out=a.out, only=a.only, quick=a.quick, scene=a.scene, cache=a.cache, threads=a.threads)
    return 0 if all(record["checked"] for record in records) else 1


def check(a: Arguments) -> None:
    """check a study file before any work"""
    from rvkernels.study import Study, load

    study = Study.resolve(load(a.study), datasets=a.datasets)
    if a.report:
        print(f"report: results/{study.name}/report.html")
    else:
        environment.check(study.frameworks)


def _part(text: str) -> Part:
    from rvkernels.parts import Part

    try:
        return Part.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parser() -> argparse.ArgumentParser:
    """The command line of rvk."""
    top = argparse.ArgumentParser(prog="rvk", description="Deep learning on aerial and satellite imagery, by stages.")
    top.add_argument("--version", action="version", version=f"rvkernels {__version__}")
    top.add_argument("--log", help="file for the log, replaced; without it the log goes to standard error")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    files = {
        "dataset": "description of the dataset (YAML)",
        "scenes": "scenes.jsonl of fetch",
        "regions": "regions.csv of split",
        "chips": "folder of chip",
        "statistics": "statistics.json of analyze",
        "weights": "initial weights of init",
        "run": "folder of train",
        "predictions": "folder of predict",
        "runs": "folder of all runs",
        "records": "folder of the records of bench-train",
        "results": "folder of the study's results",
        "figures": "folder for the figures",
        "out": "what to write",
    }

    def parted(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument("--part", type=_part, metavar="K/N", help="do part K of N, for the verb that gathers them")
        return sub

    def gatherer(function: Callable[[Arguments], None], *inputs: str, threads: bool = False) -> None:
        sub = verb(function, *inputs, threads=threads)
        sub.add_argument("--parts", type=Path, nargs="+", required=True, metavar="PATH", help="what the parts left")

    def verb(function: Callable[[Arguments], None], *inputs: str, threads: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(function.__name__.replace("_", "-"), help=function.__doc__, description=function.__doc__)
        sub.set_defaults(call=function)
        sub.add_argument("--settings", type=Path, required=True, metavar="PATH", help="settings of the stage (JSON)")
        for name in (*inputs, "out"):
            destination = "run_folder" if name == "run" else name
            sub.add_argument(f"--{name}", dest=destination, type=Path, required=True, metavar="PATH", help=files[name])
        if threads:
            sub.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores")
        return sub

    verb(fetch, "dataset", threads=True)
    verb(split, "scenes")
    verb(analyze, "scenes", "regions", threads=True)
    parted(verb(chip, "dataset", "scenes", "regions", threads=True))
    gatherer(gather_chips, "dataset", "scenes")
    runs = [
        verb(init, "dataset"),
        verb(train, "dataset", "chips", "statistics", "weights", threads=True),
        verb(bench_train, "dataset", "chips", "statistics", "weights", threads=True),
        parted(verb(predict_regions, "dataset", "run", "scenes", "regions", "statistics", threads=True)),
    ]
    for sub in runs:
        sub.add_argument("--model", required=True, help="file of rvkernels/models/")
        sub.add_argument("--seed", type=int, required=True)
    for sub in runs[1:]:
        sub.add_argument("--framework", required=True, help="file of rvkernels/frameworks/")
    together = "processes that train together on this machine; of srun's or torchrun's tasks each is one without it"
    runs[1].add_argument("--workers", type=int, default=1, metavar="N", help=f"{together}; default: 1")
    sub = runs[2]
    sub.add_argument("--batch", type=int, required=True, help="images per step")
    sub.add_argument("--round", type=int, required=True, help="number of the round")
    verb(bench_table, "records")
    verb(baseline, "dataset", "scenes", "regions", "chips", threads=True)
    gatherer(gather_predictions, "dataset", "scenes", "regions", threads=True)
    parted(verb(evaluate, "dataset", "scenes", "predictions", threads=True))
    gatherer(gather_evaluation, "dataset", "predictions")
    verb(compare, "runs")
    verb(report, "results", "figures", threads=True)
    verb(blog, "results", "figures")

    sub = verbs.add_parser("compare-studies", help=compare_studies.__doc__, description=compare_studies.__doc__)
    sub.set_defaults(call=compare_studies)
    sub.add_argument("a", type=Path, metavar="A", help="results/STUDY, the one that is compared with")
    sub.add_argument("b", type=Path, metavar="B", help="results/STUDY, of which changes are told")
    sub.add_argument("--out", type=Path, metavar="FILE", help="also write it: FILE.md, FILE.csv or FILE.json")

    sub = verbs.add_parser("export", help=export.__doc__, description=export.__doc__)
    sub.set_defaults(call=export)
    sub.add_argument("run_folder", type=Path, metavar="RUN", help=files["run"])
    kinds = "torch, onnx, ... (any other name lists all); in an environment with that framework"
    sub.add_argument("--to", required=True, metavar="KIND", help=kinds)
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    sub.add_argument("--normalise", action="store_true", help="the network takes pixel values, not normalised ones")

    sub = verbs.add_parser("bundle", help=bundle.__doc__, description=bundle.__doc__)
    sub.set_defaults(call=bundle)
    sub.add_argument("run_folder", type=Path, metavar="RUN", help=f"{files['run']}, predicted by its study")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="bundle to write (.zip)")

    sub = verbs.add_parser("predict", help=predict.__doc__, description=predict.__doc__)
    sub.set_defaults(call=predict)
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help="file of rvk bundle")
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="raster with the bands and dtype of the training")
    sub.add_argument(
        "out", type=Path, metavar="DIR", help="folder to write: GeoTIFF and GeoJSON, named after the images"
    )
    sub.add_argument("--framework", help="that computes; default: the one that trained")
    sub.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    sub.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores")
    for name, (kind, text) in PREDICT_SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        sub.add_argument(option, type=kind, metavar="N", help=f"{text}; default: as in the bundle's study")

    sub = verbs.add_parser("convert-weights", help=convert_weights.__doc__, description=convert_weights.__doc__)
    sub.set_defaults(call=convert_weights)
    sub.add_argument("source", type=Path, metavar="FILE", help="state_dict (.pth, .pt or .safetensors)")
    sub.add_argument("--out", type=Path, required=True, metavar="PATH", help="weights to write (.npz)")

    sub = verbs.add_parser("watch", help=watch.__doc__, description=f"{watch.__doc__}; Ctrl-C ends it, not the study")
    sub.set_defaults(call=watch)
    sub.add_argument("study", metavar="STUDY", help="results/STUDY, or the study's file (YAML)")
    sub.add_argument("--once", action="store_true", help="print one state and end, as where output is no terminal")
    sub.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks; default: 2")
    sub.add_argument(
        "--serve", type=int, nargs="?", const=8640, metavar="PORT", help="a page on 127.0.0.1; default: 8640, 0: any"
    )

    sub = verbs.add_parser("logs", help=logs.__doc__, description=logs.__doc__)
    sub.set_defaults(call=logs)
    sub.add_argument("results", type=Path, metavar="STUDY", help="results/STUDY, also while it runs")
    sub.add_argument("--to", required=True, metavar="KIND", help="tensorboard (needs that package) or csv")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")

    sub = verbs.add_parser("bench", help=bench.__doc__, description=bench.__doc__)
    sub.set_defaults(call=bench)
    sub.add_argument("--quick", action="store_true", help="smaller inputs, fewer rounds: less than a minute")
    sub.add_argument("--only", nargs="+", default=[], metavar="KERNEL", help="files of rvkernels/bench/; default: all")
    sub.add_argument("--scene", type=Path, metavar="DIR", help="folder of a scene to use instead of the drawn one")
    sub.add_argument("--cache", type=Path, default=Path("downloads/bench"), metavar="DIR", help="of the drawn scene")
    sub.add_argument("--threads", type=int, nargs="+", default=[1, 0], metavar="N", help="0: all cores; default: 1 0")
    sub.add_argument("--out", type=Path, default=Path("results/bench"), metavar="DIR", help="folder to write")

    sub = verbs.add_parser("check", help=check.__doc__, description=check.__doc__)
    sub.set_defaults(call=check)
    sub.add_argument("study", help="study file (YAML)")
    sub.add_argument("--datasets", default="config/datasets", help="folder of the known datasets' descriptions")
    sub.add_argument("--report", action="store_true", help="print where the study's report is")
    return top


def watch_workflow() -> None:
    """End this process when the snakemake that started it (process RVK_PARENT) is gone.

    A killed snakemake leaves its jobs running; the next one would start the same jobs beside them.
    """
    parent = os.environ.get("RVK_PARENT")
    if not parent:
        return
    from rvkernels.progress import birth

    born = birth(int(parent))

    def watch() -> None:
        while birth(int(parent)) == born is not None:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch").start()


def _follows() -> bool:
    """Whether this process is a worker of a training besides the first, whose log it is."""
    from rvkernels import workers

    seat = workers.seat(os.environ)
    return seat is not None and seat.rank > 0


def _framework(a: Arguments) -> str | None:
    """The framework that this process is to run, None when there is none."""
    if "bundle" not in a or a.framework is not None:
        return getattr(a, "framework", None)
    from rvkernels.bundle import read_about

    try:
        return read_about(a.bundle)["framework"]
    except (ValueError, FileNotFoundError):
        return None  # predict reads it again, and says what is wrong


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Returns 0; 1 when `bench` found a wrong result; 2 after one line about a wrong input."""
    a = parser().parse_args(arguments)
    a.arguments = sys.argv[1:] if arguments is None else arguments
    framework = _framework(a)
    if framework is not None:
        environment.enter(framework, a.threads, a.arguments)
    from rvkernels.files import read_json
    from rvkernels.progress import start_log, tell_error

    try:
        start_log(a.log, errors_only="workers" in a and _follows())
        watch_workflow()
        if "settings" in a:
            a.settings = read_json(a.settings)
        return a.call(a) or 0
    except (ValueError, FileNotFoundError) as error:
        tell_error(f"rvk {a.verb}: error: {' '.join(str(error).split())}")
        return 2
