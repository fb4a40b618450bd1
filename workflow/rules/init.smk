rule init:
    input:
        package=package("base"),
        dataset=dataset_file,
        pretrained=pretrained_files,
    output:
        weights=f"{DATA}/init/{{model}}/{{seed}}.npz",
    log:
        f"{RESULTS}/logs/{{experiment}}/init/{{model}}/{{seed}}.log",
    group:
        "init"
    conda:
        "../../envs/base.yaml"
    resources:
        **asks("init"),
    params:
        settings=settings("init"),
    shell:
        RVK
        + " --log {log:q} init --settings {params.settings:q} --dataset {input.dataset:q}"
        " --model {wildcards.model} --seed {wildcards.seed} --out {output.weights:q}"
