rule compare:
    input:
        package=package("base"),
        records=runs("record.json"),
        metrics=runs("eval.json"),
        controls=controls("record.json"),
        baseline_records=baselines("record.json"),
        baseline_metrics=baselines("eval.json"),
    output:
        runs=report(
            f"{RESULTS}/tables/runs.csv",
            caption="../report/runs.rst",
            category="Tables",
            labels={"table": "runs"},
        ),
        summary=report(
            f"{RESULTS}/tables/summary.csv",
            caption="../report/summary.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
        margins=report(
            f"{RESULTS}/tables/margins.csv",
            caption="../report/margins.rst",
            category="Tables",
            labels={"table": "margins"},
        ),
        frameworks=report(
            f"{RESULTS}/tables/frameworks.csv",
            caption="../report/frameworks.rst",
            category="Tables",
            labels={"table": "frameworks"},
        ),
        divergence=report(
            f"{RESULTS}/tables/divergence.csv",
            caption="../report/divergence.rst",
            category="Tables",
            labels={"table": "divergence"},
        ),
        classes=report(
            f"{RESULTS}/tables/classes.csv",
            caption="../report/classes.rst",
            category="Tables",
            labels={"table": "classes"},
        ),
        epochs=report(
            f"{RESULTS}/tables/epochs.csv",
            caption="../report/epochs.rst",
            category="Tables",
            labels={"table": "epochs"},
        ),
        targets=report(
            f"{RESULTS}/tables/targets.csv",
            caption="../report/targets.rst",
            category="Tables",
            labels={"table": "targets"},
        ),
        equal=report(
            f"{RESULTS}/tables/equal.csv",
            caption="../report/equal.rst",
            category="Tables",
            labels={"table": "equal"},
        ),
        study=report(
            f"{RESULTS}/tables/study.json",
            caption="../report/study.rst",
            category="Tables",
            labels={"table": "settings"},
        ),
    log:
        f"{RESULTS}/logs/compare.log",
    group:
        "report"
    conda:
        "../../envs/base.yaml"
    resources:
        **asks("compare"),
    params:
        settings=settings("compare"),
        runs=f"{RESULTS}/runs",
        folder=subpath(output.runs, parent=True),
    shell:
        RVK
        + " --log {log:q} compare --settings {params.settings:q} --runs {params.runs:q} --out {params.folder:q}"
