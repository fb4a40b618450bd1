# With --use-conda: the checkout, built for one of the environments of envs/. Its sources are inputs, so that an edit of a C++
# file builds anew, which neither a post-deploy script nor a requirement in the environment's file would.
rule package:
    input:
        package_sources,
    output:
        package=directory("build/conda/{environment}"),
    log:
        "build/conda/{environment}.log",
    conda:
        "../../envs/{environment}.yaml"
    threads: workflow.cores or 1
    params:
        checkout=os.path.dirname(workflow.basedir),
    shell:
        "python -m pip install --no-build-isolation --no-deps --target {output.package:q}"
        " -C build-dir={resources.tmpdir:q}/rvkernels-{wildcards.environment} {params.checkout:q} > {log:q} 2>&1"
