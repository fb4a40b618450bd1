# The kernels against the fastest alternatives, for a study with `bench:`. It takes every core, so that it runs alone.
rule bench:
    input:
        package=package("base"),
        python=PEERS_PYTHON if CONDA else [],
    output:
        records=report(
            KERNELS,
            caption="../report/kernels.rst",
            category="Kernels",
            labels={"table": "times of kernels, their peers and floors"},
        ),
        machine=report(
            os.path.join(os.path.dirname(KERNELS), "machine.json"),
            caption="../report/machine.rst",
            category="Kernels",
            labels={"table": "machine and software"},
        ),
    log:
        "results/bench/kernels.log",
    conda:
        "../../envs/base.yaml"
    threads: workflow.cores or 1
    resources:
        **asks("bench"),
    params:
        quick="--quick" if STUDY.config["bench"] == "quick" else "",
        folder=subpath(output.records, parent=True),
        code=STUDY.bench_code(),
    shell:
        ("RVK_BENCH_PYTHON=$(cat {input.python:q}) " if CONDA else "")
        + RVK
        + " --log {log:q} bench {params.quick} --out {params.folder:q}"


# Peers run in an interpreter of their own. Without conda that is .venv-bench; with conda this tells where it is.
rule bench_python:
    output:
        PEERS_PYTHON,
    log:
        f"{PEERS_PYTHON}.log",
    conda:
        "../../envs/bench.yaml"
    resources:
        **asks("bench_python"),
    shell:
        "python -c 'import sys; print(sys.executable)' > {output:q} 2> {log:q}"
