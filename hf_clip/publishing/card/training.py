"""The card's training: on what, by which settings, for how long, on which hardware."""

from ...core.training_record import DataRecord, HardwareRecord, TrainingRecord
from ...evaluation.markdown import escaped, table
from .family import FamilyCard
from .words import cell, counted, dataset_link, inline, shown, without_empty

_COLUMNS = ["data", "pictures", "captions", "captions a picture", "share of an epoch", "length of a caption"]


def training_sections(training: TrainingRecord, card: FamilyCard) -> dict[str, str | None]:
    """By their names in the template; of what is not known None, or nothing."""
    versions = (f"{escaped(name)} {escaped(version)}" for name, version in training.versions.items())
    return {
        "data": without_empty(_COLUMNS, [_data_row(entry) for entry in training.data]) if training.data else None,
        "settings": _settings(training.hyperparameters.changed),
        "usual_settings": _settings(training.hyperparameters.default),
        "augmentation": inline(training.augmentation),
        "course": _course(training, card),
        "versions": ", ".join(versions),
    }


def _data_row(entry: DataRecord) -> list[str]:
    lengths, each, weight = "", entry.captions_per_picture, entry.weight
    for unit, found in (("words", entry.words), ("characters", entry.characters)):
        if found:
            lengths = f"{found.median:g} {unit} (median; {found.shortest:g} to {found.longest:g})"
    return [
        dataset_link(entry.name or "unnamed"),
        "streamed" if entry.streamed else cell(entry.pictures),
        cell(entry.captions),
        "" if each is None else f"{each:.3g}",
        "" if weight is None else f"{weight:.3g}",
        lengths,
    ]


def _settings(settings: dict[str, object]) -> str | None:
    rows = [[f"`{name}`", shown(value)] for name, value in settings.items() if value is not None]
    return table(["setting", "value"], rows, left=(0, 1)) if rows else None


def _course(training: TrainingRecord, card: FamilyCard) -> str:
    """How long it took, and on what, in sentences."""
    said = [_steps(training, training.steps, card)] if training.steps else []
    if training.pairs_per_second:
        said.append(f"Speed: {training.pairs_per_second:.4g} {card.item}s a second.")
    if training.hardware:
        said.append(f"Hardware: {escaped(hardware(training.hardware))}.")
    emissions = training.emissions
    if emissions and emissions.kg is not None:
        energy = f", {emissions.kwh:.3g} kWh" if emissions.kwh is not None else ""
        source = f", estimated by {escaped(emissions.source)}" if emissions.source else ""
        said.append(f"Emissions: {1000 * emissions.kg:.3g} g of CO₂ equivalent{energy}{source}.")
    return " ".join(said)


def _steps(training: TrainingRecord, steps: int, card: FamilyCard) -> str:
    epochs = f" ({counted(training.epochs, 'epoch', 'g')})" if training.epochs else ""
    batch = f" of {counted(training.batch_size, card.item)}" if training.batch_size else ""
    if training.accumulated_batches > 1:
        batch = f" of {training.accumulated_batches:,} batches{batch}{card.of_each_batch}"
    trained = " was trained" if steps == 1 else " were trained"
    took = f" took {_duration(training.seconds)}" if training.seconds else trained
    return f"{counted(steps, 'step')}{batch}{epochs}{took}."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def hardware(record: HardwareRecord) -> str:
    """GPU or CPU, processes, precision."""
    count = record.processes
    processes = f"{count} process{'' if count == 1 else 'es'}" if count else None
    return ", ".join(filter(None, [record.device, processes, record.precision]))
