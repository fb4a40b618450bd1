# What train keeps to resume from stands in the same folder but is no output: snakemake removes the outputs of a job that
# was killed, and the checkpoint has to outlive that.
rule train:
    input:
        package=package("{framework}"),
        dataset=dataset_file,
        chips=rules.chip.output.chips,
        statistics=rules.analyze.output.statistics,
        weights=rules.init.output.weights,
    output:
        record=f"{RUN}/record.json",
        log=f"{RUN}/log.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/train/{{model}}/{{framework}}/{{seed}}.log",
    priority: train_priority
    conda:
        "../../envs/{framework}.yaml"
    threads: STUDY.threads * STUDY.workers
    resources:
        **asks("train", STUDY.device, STUDY.workers),
    params:
        settings=settings("train"),
        folder=subpath(output.record, parent=True),
        workers=STUDY.workers,
        threads=lambda wildcards, threads: max(1, threads // STUDY.workers),
        start=start_workers,
    shell:
        RVK.replace("exec", "exec {params.start}")
        + " --log {log:q} train --settings {params.settings:q} --framework {wildcards.framework}"
        " --model {wildcards.model} --seed {wildcards.seed} --dataset {input.dataset:q} --chips {input.chips:q}"
        " --statistics {input.statistics:q} --weights {input.weights:q} --threads {params.threads}"
        " --workers {params.workers} --out {params.folder:q}"
