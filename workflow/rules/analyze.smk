rule analyze:
    input:
        package=package("base"),
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
        settings=settings("analyze"),
    shell:
        RVK
        + " --log {log:q} analyze --settings {params.settings:q} --scenes {input.scenes:q}"
        " --regions {input.regions:q} --threads {threads} --out {output.statistics:q}"
