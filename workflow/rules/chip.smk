rule chip:
    input:
        package=package("base"),
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        regions=rules.split.output.regions,
    output:
        chips=directory(f"{DATA}/chips"),
    log:
        f"{RESULTS}/logs/{{experiment}}/chip.log",
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    resources:
        **asks("chip"),
    params:
        settings=settings("chip"),
    shell:
        RVK
        + " --log {log:q} chip --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --threads {threads} --out {output.chips:q}"
