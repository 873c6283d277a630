"""timm's image towers, as transformers wraps them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from transformers import TimmWrapperConfig
from transformers.utils import is_timm_available

from ...core.errors import InputError
from ..image_processors import open_image_processor, timm_image_processor
from ..towers_hf_clip import build_tower
from .hub import open_from_hub
from .source import ImageTower, TowerSource

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


class Timm(TowerSource):
    prefix = "timm/"
    names = {"vision": "timm/…"}

    def open_image_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> ImageTower:
        if not is_timm_available():
            raise InputError(f'timm/{name} needs timm: pip install "hf_clip[timm]"')
        import timm

        if not timm.is_model(_architecture(name)):
            raise InputError(f"timm has no {_architecture(name)!r}: timm.list_models() tells which it has")
        weights = timm.get_pretrained_cfg(name)
        if not pretrained:
            return _new_tower(_architecture(name), weights)
        if not weights or not weights.has_weights or not weights.hf_hub_id:
            raise InputError(f"timm has no weights on the Hub for {name!r}: scratch/timm/{name} begins without")
        tower, _ = open_from_hub("vision", weights.hf_hub_id, pretrained=True, pooling=None)
        return ImageTower(tower, open_image_processor(weights.hf_hub_id))

    def repository(self, name: str, config: Mapping[str, object]) -> str | None:
        """That of the weights, whose tag stands in the configuration: "timm/resnet50" alone is no repository."""
        weights = config.get("pretrained_cfg")
        tag = weights.get("tag") if isinstance(weights, Mapping) else None
        return f"timm/{config['architecture']}.{tag}" if config.get("architecture") and tag else name


def _architecture(name: str) -> str:
    return name.split(".")[0]


def _new_tower(architecture: str, weights: "PretrainedCfg | None") -> ImageTower:
    """
    Args:
        weights: timm's `PretrainedCfg` of those whose images are to be prepared alike; None: there are none.
    """
    import timm

    settings = weights.to_dict() if weights else {"input_size": (3, 224, 224)}
    config = TimmWrapperConfig.from_dict({"architecture": architecture, "pretrained_cfg": settings, "num_classes": 0})
    tower = build_tower(config, "pooler")
    # transformers has drawn every weight alike; timm knows how each of its layers begins.
    tower.timm_model.load_state_dict(timm.create_model(architecture, num_classes=0).state_dict())  # type: ignore[union-attr]
    return ImageTower(tower, timm_image_processor(timm.data.resolve_data_config(settings)))
