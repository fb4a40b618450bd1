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
    threads: STUDY.threads
    resources:
        **asks("train", STUDY.device),
    params:
        settings=settings("train"),
        folder=subpath(output.record, parent=True),
    shell:
        RVK
        + " --log {log:q} train --settings {params.settings:q} --framework {wildcards.framework}"
        " --model {wildcards.model} --seed {wildcards.seed} --dataset {input.dataset:q} --chips {input.chips:q}"
        " --statistics {input.statistics:q} --weights {input.weights:q} --threads {threads}"
        " --out {params.folder:q}"
