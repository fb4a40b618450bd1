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
    shell:
        RVK
        + " --log {log:q} evaluate --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --predictions {input.predictions:q} --threads {threads}"
        " --out {output.metrics:q}"
