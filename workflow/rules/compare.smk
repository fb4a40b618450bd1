rule compare:
    input:
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
        ),
        summary=report(
            f"{RESULTS}/tables/summary.csv",
            caption="../report/summary.rst",
            category="Tables",
        ),
        margins=report(
            f"{RESULTS}/tables/margins.csv",
            caption="../report/margins.rst",
            category="Tables",
        ),
        frameworks=report(
            f"{RESULTS}/tables/frameworks.csv",
            caption="../report/frameworks.rst",
            category="Tables",
        ),
        divergence=report(
            f"{RESULTS}/tables/divergence.csv",
            caption="../report/divergence.rst",
            category="Tables",
        ),
        others=[
            f"{RESULTS}/tables/{name}.csv"
            for name in ("classes", "epochs", "targets", "equal")
        ],
    log:
        f"{RESULTS}/logs/compare.log",
    conda:
        "../../envs/base.yaml"
    params:
        settings=settings("compare"),
        runs=f"{RESULTS}/runs",
        folder=subpath(output.runs, parent=True),
    shell:
        "exec rvk --log {log:q} compare --settings {params.settings:q} --runs {params.runs:q} --out {params.folder:q}"
