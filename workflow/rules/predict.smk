rule predict:
    input:
        package=package("{framework}"),
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
        **asks("predict", STUDY.device),
    params:
        settings=settings("predict"),
        folder=subpath(input.record, parent=True),
    shell:
        RVK
        + " --log {log:q} predict --settings {params.settings:q} --framework {wildcards.framework}"
        " --model {wildcards.model} --seed {wildcards.seed} --dataset {input.dataset:q}"
        " --run {params.folder:q} --scenes {input.scenes:q} --regions {input.regions:q} --statistics {input.statistics:q}"
        " --threads {threads} --out {output.predictions:q}"
