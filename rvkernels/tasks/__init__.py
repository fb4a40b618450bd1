"""What training and prediction need to know about a task, one file each.

A task has
    PRIMARY                            the metric that chooses the best checkpoint unless a study says otherwise
    METRICS                            names of what `validate` finds
    LOSS                               the loss unless a study says otherwise
    targets(graph, batch, *, ...)      arrays for the loss; keyword-only parameters are the setting `assign`
    probabilities(outputs)             float32 scores of a framework's logits
    validate(framework, graph, stream) metrics of a validation split: a dict of floats, larger is better
and, where chips may be without objects, for rvkernels/hard_negatives.py
    false_alarms(framework, graph, stream)  how much is found in each chip where nothing is: float64 (chips,)
"""
