"""How the trials of a study are run: one after another, many as one program, in processes, or on a Ray cluster.

A module here offers `run(study, setting) -> None`: it takes trials (`study.take(count)`: those to
be run at the same time) until none is left, tells the study every validation score
(`study.report(trial, evaluations, value)`, of all trials that stand at the same place before
`study.should_prune(trial)` of any), and how each ended (`study.tell`). A trial that fails is told
with its cause, and the study goes on; what is wrong with the study as a whole (DanluError from the
study itself) and Interrupted pass through.

    one_by_one    in this process, one after another
    vectorised    groups of one architecture as one program (danlu.training.population)
    processes     in worker processes of this machine
    ray           on a Ray cluster

`one_trial` trains one trial in its folder; all but `vectorised` use it, where they run it.

Of `processes` and `ray`: an `assignment` is a trial as plain data; the `crew` gives assignments out
and decides what becomes of a trial whose worker is lost; a `worker` does its job at the end of a
`channel`; on Linux workers are forked from a `nursery`; `causes` says in words why a trial ended.
"""

from __future__ import annotations
