"""What is checked of any model, whatever its towers."""

import torch


def check_export(model, names: list[str], dim=None, strict: bool = False, **settings) -> None:
    """Exported with 3 texts and 4 pictures, it gives for other numbers and lengths what the model itself gives."""
    batch, tokens = ({0: dim or torch.export.Dim(name, min=2, max=2048)} for name in ("batch", "texts"))
    shapes = {name: batch if name == "pixel_values" else tokens | {1: torch.export.Dim.AUTO} for name in names}
    example = {name: batch_of(3, 4, 7)[name] for name in names}
    shapes |= dict.fromkeys(settings)
    program = torch.export.export(model, (), example | settings, dynamic_shapes=shapes, strict=strict).module()
    for sizes in ((4, 4, 7), (2, 6, 9)):
        inputs = {name: batch_of(*sizes)[name] for name in names}
        with torch.no_grad():
            found, expected = program(**inputs, **settings), model(**inputs, **settings)
        tensors = {name for name, value in expected.items() if isinstance(value, torch.Tensor)}
        assert type(found) is type(expected)
        assert tensors == {name for name, value in found.items() if isinstance(value, torch.Tensor)}
        for name in tensors:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)


def batch_of(texts: int, pictures: int, tokens: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(tokens)
    mask = (torch.arange(tokens) < torch.randint(3, tokens + 1, (texts, 1), generator=draw)).long()
    return {
        "input_ids": torch.randint(5, 50, (texts, tokens), generator=draw) * mask,
        "attention_mask": mask,
        "pixel_values": torch.randn(pictures, 3, 32, 32, generator=draw),
    }


def bytes_saved_for_backward(model, inputs) -> int:
    saved: dict[int, int] = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(**inputs, return_loss=True).loss
    total = sum(size for pointer, size in saved.items() if pointer not in weights)
    loss.backward()
    return total
