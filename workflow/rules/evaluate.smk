rule evaluate:
    input:
        package=package("base"),
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        predictions=f"{RESULTS}/runs/{{experiment}}/{{run}}/predictions",
    output:
        metrics=f"{RESULTS}/runs/{{experiment}}/{{run}}/eval.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/evaluate/{{run}}.log",
    group:
        "evaluate"
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    resources:
        **asks("evaluate"),
    params:
        settings=settings("evaluate", "chip"),
        part="",
    shell:
        RVK
        + " --log {log:q} evaluate --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --predictions {input.predictions:q} --threads {threads}"
        " --out {output.metrics:q} {params.part}"


if STUDY.parts["evaluate"] > 1:
    COUNTED = f"{PARTS}/evaluate/{{run}}/{{scatteritem}}.npz"

    ruleorder: gather_evaluation > evaluate

    use rule evaluate as evaluate_part with:
        output:
            metrics=temp(COUNTED),
        log:
            f"{RESULTS}/logs/{{experiment}}/evaluate/{{run}}/{{scatteritem}}.log",
        group:
            "evaluate_part"
        params:
            part=part,

    rule gather_evaluation:
        input:
            package=package("base"),
            dataset=dataset_file,
            predictions=rules.evaluate.input.predictions,
            parts=gather.evaluate(COUNTED, allow_missing=True),
        output:
            metrics=f"{RESULTS}/runs/{{experiment}}/{{run}}/eval.json",
        log:
            f"{RESULTS}/logs/{{experiment}}/gather_evaluation/{{run}}.log",
        group:
            "evaluate"
        conda:
            "../../envs/base.yaml"
        resources:
            **asks("evaluate"),
        params:
            settings=settings("evaluate", "chip"),
        shell:
            RVK
            + " --log {log:q} gather-evaluation --settings {params.settings:q} --dataset {input.dataset:q}"
            " --predictions {input.predictions:q} --parts {input.parts:q} --out {output.metrics:q}"
