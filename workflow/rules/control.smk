# The same training with another number of threads: what rounding alone does to the losses. It stands inside the run that
# it repeats, and no other stage takes it for a run.
use rule train as control with:
    output:
        record=f"{RUN}/control/record.json",
        log=f"{RUN}/control/log.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/control/{{model}}/{{framework}}/{{seed}}.log",
    priority: 0
    threads: STUDY.control_threads * STUDY.workers
