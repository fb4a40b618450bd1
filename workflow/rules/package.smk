# With --use-conda: a wheel of the checkout, built and unpacked where jobs find it by PYTHONPATH. Its sources are inputs, so that
# an edit of a C++ file builds anew, which neither a post-deploy script nor a requirement in an environment's file would; what
# CMake made is kept beside it, so that only what changed is compiled.
#
# A checkpoint, because jobs wait for it by an input that is `ancient`: while such an input is to be made Snakemake does not look
# whether the settings of the jobs behind it have changed. After a checkpoint it looks again.
checkpoint package:
    input:
        package_sources,
    output:
        package=directory("build/conda/{environment}"),
    log:
        "build/conda/{environment}.log",
    conda:
        "../../envs/{environment}.yaml"
    threads: workflow.cores or 1
    resources:
        **asks("package"),
    params:
        checkout=CHECKOUT,
        cmake=os.path.abspath("build/conda/cmake-{environment}"),
    shell:
        "CMAKE_BUILD_PARALLEL_LEVEL={threads} python -m pip install --no-build-isolation --no-deps"
        " --target {output.package:q} -C build-dir={params.cmake:q} {params.checkout:q} > {log:q} 2>&1"
