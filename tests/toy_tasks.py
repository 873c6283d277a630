"""A task from outside, as a package of somebody's own would have it."""

import numpy as np

from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.tasks.task import Task


class Brightness(Task):
    """How large the first component of the images' embeddings is on average."""

    name, title, phrase = "brightness", "Brightness", "how bright images are to it"
    hub_type = ("other", "Brightness of images")
    pattern = "brightness_"

    def measure(self, given):
        first = given.embeddings.image_embeds[:, 0].double().numpy()
        shares = {"brightness_mean": (first, first * 0 + 1)}
        return Outcome({"images": len(first), "brightness_mean": first.mean()}, {"component": 0}, shares)


class Darkness(Brightness):
    """The same with more to say of itself."""

    name, title, phrase = "darkness", "Darkness", "how dark images are to it"
    pattern = "darkness_"
    choices = ("darkness_mean",)

    def measure(self, given):
        mean = -super().measure(given).metrics["brightness_mean"]
        shares = {"darkness_blue": (np.linspace(-3, -2, 8), np.ones(8))}
        beside = {
            "darkness_mean_chance": 0.0,
            "darkness_blue": -2.5,
            "darkness_blue_chance": -9.0,
            "darkness_raw": 1.0,
        }
        return Outcome({"images": 8, "darkness_mean": mean, **beside}, shares=shares)

    def label(self, metric):
        return metric.removeprefix("darkness_") + " darkness"

    def in_card(self, metric):
        return metric != "darkness_raw"

    def on_hub(self, metric):
        return metric == "darkness_mean"

    def hub_metric(self, metric):
        return "darkness"

    def lower_is_better(self, metric):
        return metric == "darkness_blue"

    def limits(self, figures, data):
        yield f"On {data} it is dark to {figures['darkness_mean'].value:.1f}."

    def draw(self, outcomes, folder, suffix):
        (folder / f"bars_{suffix}.png").write_bytes(b"drawn")
        return [f"bars_{suffix}.png"]

    def draw_examples(self, drawn, folder, suffix):
        (folder / f"dark{suffix}.png").write_bytes(b"drawn")
        return [f"dark{suffix}.png"]


class Untold(Task):
    """Without a title."""

    name, phrase, hub_type, pattern = "untold", "nothing", ("other", "Nothing"), "untold_"

    def measure(self, given):
        raise NotImplementedError
