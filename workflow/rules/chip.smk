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
        part="",
    shell:
        RVK
        + " --log {log:q} chip --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --threads {threads} --out {output.chips:q} {params.part}"


if STUDY.parts["chip"] > 1:

    ruleorder: gather_chips > chip

    use rule chip as chip_part with:
        output:
            chips=temp(directory(f"{PARTS}/chip/{{scatteritem}}")),
        log:
            f"{RESULTS}/logs/{{experiment}}/chip/{{scatteritem}}.log",
        params:
            part=part,

    rule gather_chips:
        input:
            package=package("base"),
            dataset=dataset_file,
            scenes=rules.fetch.output.scenes,
            parts=gather.chip(f"{PARTS}/chip/{{scatteritem}}", allow_missing=True),
        output:
            chips=directory(f"{DATA}/chips"),
        log:
            f"{RESULTS}/logs/{{experiment}}/gather_chips.log",
        conda:
            "../../envs/base.yaml"
        resources:
            **asks("chip"),
        params:
            settings=settings("chip"),
        shell:
            RVK
            + " --log {log:q} gather-chips --settings {params.settings:q} --dataset {input.dataset:q}"
            " --scenes {input.scenes:q} --parts {input.parts:q} --out {output.chips:q}"
