"""How the trials of a study are run: one by one, many as one program, in processes, on Ray.

Each executor is a module with `run(study, context) -> None` (danlu.search.context.Executor). It
takes trials with `study.take(count)` until none is left, passes every validation score to
`study.report(trial, evaluations, value)`, asks `study.should_prune(trial)` once all trials at the
same evaluation have reported, and ends each trial with `study.tell`. A trial that fails is told
with its cause, and the study goes on. Errors of the study as a whole (DanluError) and Interrupted
are raised.

    one_by_one    in this process, one after another
    vectorised    groups of one architecture as one program (danlu.training.population)
    processes     in worker processes of this machine
    ray           on a Ray cluster

`one_trial` trains one trial in its folder; every executor but `vectorised` runs it in the process
of the trial. What `processes` and `ray` share: `job` describes a trial as plain data, `scheduler`
hands the jobs to workers and retries lost ones, a `worker` runs its job at the end of a `channel`,
on Linux workers are forked from a `fork_server`, and `failure` says why a trial failed.
"""

from __future__ import annotations
