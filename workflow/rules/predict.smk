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
        part="",
        folder=subpath(input.record, parent=True),
    shell:
        RVK
        + " --log {log:q} predict-regions --settings {params.settings:q} --framework {wildcards.framework}"
        " --model {wildcards.model} --seed {wildcards.seed} --dataset {input.dataset:q}"
        " --run {params.folder:q} --scenes {input.scenes:q} --regions {input.regions:q} --statistics {input.statistics:q}"
        " --threads {threads} --out {output.predictions:q} {params.part}"


if STUDY.parts["predict"] > 1:
    PREDICTED = f"{PARTS}/predict/{{model}}/{{framework}}/{{seed}}/{{scatteritem}}"

    ruleorder: gather_predictions > predict

    use rule predict as predict_part with:
        output:
            predictions=temp(directory(PREDICTED)),
        log:
            f"{RESULTS}/logs/{{experiment}}/predict/{{model}}/{{framework}}/{{seed}}/{{scatteritem}}.log",
        params:
            part=part,

    rule gather_predictions:
        input:
            package=package("base"),
            dataset=dataset_file,
            scenes=rules.fetch.output.scenes,
            regions=rules.split.output.regions,
            parts=gather.predict(PREDICTED, allow_missing=True),
        output:
            predictions=directory(f"{RUN}/predictions"),
        log:
            f"{RESULTS}/logs/{{experiment}}/gather_predictions/{{model}}/{{framework}}/{{seed}}.log",
        conda:
            "../../envs/base.yaml"
        threads: STUDY.threads
        resources:
            **asks("predict"),
        params:
            settings=settings("predict"),
        shell:
            RVK
            + " --log {log:q} gather-predictions --settings {params.settings:q} --dataset {input.dataset:q}"
            " --scenes {input.scenes:q} --regions {input.regions:q} --parts {input.parts:q}"
            " --threads {threads} --out {output.predictions:q}"
