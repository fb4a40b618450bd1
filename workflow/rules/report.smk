rule report:
    input:
        package=package("base"),
        tables=rules.compare.output,
        statistics=of_every_experiment("statistics.json"),
        chips=of_every_experiment("chips"),
        predictions=runs("predictions"),
        kernels=KERNELS if STUDY.config["bench"] else [],
    output:
        page=report(
            f"{RESULTS}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"document": "report"},
        ),
        figures=report(
            directory(f"{RESULTS}/figures"),
            patterns=["{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory=figure_experiment,
            labels={"figure": "{name}"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    group:
        "report"
    conda:
        "../../envs/base.yaml"
    threads: STUDY.threads
    resources:
        **asks("report"),
    params:
        settings=settings("report"),
        results=subpath(output.page, parent=True),
    shell:
        RVK
        + " --log {log:q} report --settings {params.settings:q} --results {params.results:q}"
        " --threads {threads}"
        " --figures {output.figures:q} --out {output.page:q}"


rule blog:
    input:
        package=package("base"),
        tables=rules.compare.output,
        figures=rules.report.output.figures,
    output:
        post=report(
            directory(f"{RESULTS}/blog"),
            patterns=["{name}.md"],
            caption="../report/blog.rst",
            category="Report",
            labels={"document": "blog post"},
        ),
    log:
        f"{RESULTS}/logs/blog.log",
    group:
        "report"
    conda:
        "../../envs/base.yaml"
    resources:
        **asks("blog"),
    params:
        settings=settings("blog"),
        results=subpath(output.post, parent=True),
    shell:
        RVK
        + " --log {log:q} blog --settings {params.settings:q} --results {params.results:q}"
        " --figures {input.figures:q} --out {output.post:q}"
