rule fetch:
    input:
        dataset=dataset_file,
    output:
        scenes=f"{DATA}/scenes.jsonl",
    log:
        f"{RESULTS}/logs/{{experiment}}/fetch.log",
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    params:
        settings=settings("fetch"),
    shell:
        "exec rvk --log {log:q} fetch --settings {params.settings:q} --dataset {input.dataset:q}"
        " --threads {threads} --out {output.scenes:q}"


rule split:
    input:
        scenes=rules.fetch.output.scenes,
    output:
        regions=f"{DATA}/regions.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/split.log",
    conda:
        "../../envs/base.yaml"
    params:
        settings=settings("split", "chip"),
    shell:
        "exec rvk --log {log:q} split --settings {params.settings:q} --scenes {input.scenes:q} --out {output.regions:q}"


rule analyze:
    input:
        dataset=dataset_file,
        scenes=rules.fetch.output.scenes,
        regions=rules.split.output.regions,
    output:
        statistics=f"{DATA}/statistics.json",
    log:
        f"{RESULTS}/logs/{{experiment}}/analyze.log",
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    params:
        settings=settings("analyze", "chip"),
    shell:
        "exec rvk --log {log:q} analyze --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --threads {threads} --out {output.statistics:q}"


rule chip:
    input:
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
    params:
        settings=settings("chip"),
    shell:
        "exec rvk --log {log:q} chip --settings {params.settings:q} --dataset {input.dataset:q}"
        " --scenes {input.scenes:q} --regions {input.regions:q} --threads {threads} --out {output.chips:q}"
