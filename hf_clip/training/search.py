"""What a search of hyperparameters looks at: one figure of an evaluation, and not the sum of all of them."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer, TrainingArguments

from ..core.errors import InputError
from .named_sets import of_no_set, set_of


def objective_of(args: TrainingArguments, eval_dataset: Any) -> tuple[Callable[[dict[str, float]], float], str]:
    """(the objective of what `evaluate()` gives, "maximize" or "minimize"): `metric_for_best_model`, or else the loss.

    Raises:
        InputError: it is of no evaluation set.
    """
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    names = eval_dataset if isinstance(eval_dataset, Mapping) else [""]
    if set_of(metric, names) is None:
        raise InputError(of_no_set(metric, names))

    def objective(metrics: dict[str, float]) -> float:
        if f"eval_{metric}" not in metrics:
            raise InputError(
                f"no figure eval_{metric} to search by: choose metric_for_best_model of {', '.join(metrics)}"
            )
        return metrics[f"eval_{metric}"]

    return objective, "maximize" if args.metric_for_best_model and args.greater_is_better else "minimize"


def check_search(trainer: Trainer, settings: Mapping[str, Any]) -> None:
    """
    Args:
        settings: of the backend.

    Raises:
        InputError: there is no `model_init`, nothing to evaluate on, or trials are to run at the same time.
    """
    if trainer.model_init is None:
        raise InputError("a search trains a new model in each trial: give the trainer model_init in place of model")
    if trainer.eval_dataset is None:
        raise InputError("a search compares evaluations: give the trainer an eval_dataset")
    if settings.get("n_jobs", 1) != 1:
        raise InputError("trials share this trainer: leave out n_jobs, and start more processes for more at a time")
