# Training steps on synthetic batches, apart from the study: `snakemake bench_train`. One process per framework, model, batch
# size and round. A measurement takes every core that this machine gives the workflow, so that it runs alone, and computes
# with as many as a training has.
rule bench_train_round:
    input:
        package=package("{framework}"),
        dataset=dataset_file,
        chips=rules.chip.output.chips,
        statistics=rules.analyze.output.statistics,
        weights=f"{DATA}/init/{{model}}/{STUDY.seeds[0]}.npz",
    output:
        record=f"{BENCH}/{{experiment}}/{{model}}/{{framework}}/{{batch}}/{{round}}.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/bench_train/{{model}}/{{framework}}/{{batch}}/{{round}}.log",
    priority: bench_priority
    conda:
        "../../envs/{framework}.yaml"
    threads: max(STUDY.threads, workflow.cores or 1)
    resources:
        **asks("bench_train_round", STUDY.device),
    params:
        settings=settings("bench_train", "train"),
        seed=STUDY.seeds[0],
        threads=lambda wildcards, threads: min(threads, STUDY.threads),
    shell:
        RVK
        + " --log {log:q} bench-train --settings {params.settings:q} --framework {wildcards.framework}"
        " --model {wildcards.model} --seed {params.seed} --dataset {input.dataset:q} --chips {input.chips:q}"
        " --statistics {input.statistics:q} --weights {input.weights:q} --threads {params.threads}"
        " --batch {wildcards.batch} --round {wildcards.round} --out {output.record:q}"


rule bench_train:
    input:
        package=package("base"),
        records=bench_records,
    output:
        table=report(
            f"{RESULTS}/tables/bench_train.csv",
            caption="../report/bench_train.rst",
            category="Tables",
            labels={"table": "bench_train"},
        ),
    log:
        f"{RESULTS}/logs/bench_train.log",
    conda:
        "../../envs/base.yaml"
    resources:
        **asks("bench_train"),
    params:
        settings=settings("bench_table"),
        records=BENCH,
    shell:
        RVK
        + " --log {log:q} bench-table --settings {params.settings:q} --records {params.records:q}"
        " --out {output.table:q}"
