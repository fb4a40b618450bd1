rule fetch:
    input:
        package=package("base"),
        dataset=dataset_file,
    output:
        scenes=f"{DATA}/scenes.jsonl",
    log:
        f"{RESULTS}/logs/{{experiment}}/fetch.log",
    group:
        "data"
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    resources:
        **asks("fetch"),
    params:
        settings=settings("fetch"),
    shell:
        RVK
        + " --log {log:q} fetch --settings {params.settings:q} --dataset {input.dataset:q}"
        " --threads {threads} --out {output.scenes:q}"
