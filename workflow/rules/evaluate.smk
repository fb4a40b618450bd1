rule predict:
    input:
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        regions=rules.split.output.regions,
        statistics=rules.analyze.output.statistics,
        record=rules.train.output.record,
    output:
        predictions=directory(f"{RUN}/predictions"),
    log:
        f"{RESULTS}/logs/{{experiment}}/predict/{{model}}/{{framework}}/{{seed}}.log",
    conda:
        "../../envs/{framework}.yaml"
    threads: STUDY.threads
    resources:
        gpu=1 if STUDY.device == "cuda" else 0,
    params:
        settings=settings("predict"),
        folder=subpath(input.record, parent=True),
    shell:
        "exec rvk --log {log:q} predict --settings {params.settings:q} --framework {wildcards.framework}"
        " --model {wildcards.model} --seed {wildcards.seed} --dataset {input.dataset:q}"
        " --run {params.folder:q} --scenes {input.scenes:q} --regions {input.regions:q} --statistics {input.statistics:q}"
        " --threads {threads} --out {output.predictions:q}"


rule baseline:
    input:
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        regions=rules.split.output.regions,
        chips=rules.chip.output.chips,
    output:
        predictions=directory(f"{BASELINE}/predictions"),
        record=f"{BASELINE}/record.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/baseline.log",
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    params:
        settings=settings("baseline", "predict"),
        folder=subpath(output.record, parent=True),
    shell:
        "exec rvk --log {log:q} baseline --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --chips {input.chips:q}"
        " --threads {threads} --out {params.folder:q}"


rule evaluate:
    input:
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        predictions=f"{RESULTS}/runs/{{experiment}}/{{run}}/predictions",
    output:
        metrics=f"{RESULTS}/runs/{{experiment}}/{{run}}/eval.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/evaluate/{{run}}.log",
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    params:
        settings=settings("evaluate", "chip"),
    shell:
        "exec rvk --log {log:q} evaluate --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --predictions {input.predictions:q} --threads {threads}"
        " --out {output.metrics:q}"


rule compare:
    input:
        records=runs("record.json"),
        metrics=runs("eval.json"),
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
        epochs=f"{RESULTS}/tables/epochs.csv",
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
