"""How good a model is: metrics, tasks, intervals, a report."""
