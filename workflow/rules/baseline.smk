rule baseline:
    input:
        package=package("base"),
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        regions=rules.split.output.regions,
        chips=rules.chip.output.chips,
    output:
        predictions=directory(f"{BASELINE}/predictions"),
        record=f"{BASELINE}/record.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/baseline.log",
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    resources:
        **asks("baseline"),
    params:
        settings=settings("baseline", "predict"),
        folder=subpath(output.record, parent=True),
    shell:
        RVK
        + " --log {log:q} baseline --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --chips {input.chips:q}"
        " --threads {threads} --out {params.folder:q}"
