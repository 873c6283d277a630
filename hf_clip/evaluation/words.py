"""Figures in sentences."""


def percent(share: float) -> str:
    """To two places that say something, and never a 0 or 100 that it is not."""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.1 <= share <= 0.9 else f"{100 * share:.1f} %"
