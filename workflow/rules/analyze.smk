rule analyze:
    input:
        package=package("base"),
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        regions=rules.split.output.regions,
    output:
        statistics=f"{DATA}/statistics.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/analyze.log",
    group:
        "data"
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    resources:
        **asks("analyze"),
    params:
        settings=settings("analyze", "chip"),
    shell:
        RVK
        + " --log {log:q} analyze --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --threads {threads} --out {output.statistics:q}"
