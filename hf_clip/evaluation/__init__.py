"""How good a model is: metrics, tasks, intervals, a report; and what a model says of a data set."""
