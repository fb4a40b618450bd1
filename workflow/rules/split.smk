rule split:
    input:
        package=package("base"),
        scenes=rules.fetch.output.scenes,
        polygons=split_file,
    output:
        regions=f"{DATA}/regions.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/split.log",
    group:
        "data"
    conda:
        "../../envs/base.yaml"
    resources:
        **asks("split"),
    params:
        settings=settings("split"),
    shell:
        RVK
        + " --log {log:q} split --settings {params.settings:q} --scenes {input.scenes:q} --out {output.regions:q}"
