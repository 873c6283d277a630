"""What `benchmark.py` compares, a file a subject; every function of `ROWS` gives rows of the table."""

# name → (module, function, the row's names in a few words)
ROWS = {
    "step_open_clip": ("train_step", "against_open_clip", "train step, eager, against open_clip"),
    "step_compiled": ("train_step", "against_open_clip_compiled", "train step, torch.compile on both sides"),
    "step_sentence_transformers": (
        "train_step",
        "against_sentence_transformers",
        "train step against the sentence-transformers Router",
    ),
    "channels_last": ("train_step", "channels_last", "train step, channels-last against channels-first"),
    "embed_captions": ("embedding", "captions", "embedding captions against open_clip"),
    "embed_pictures": ("embedding", "pictures", "embedding pictures against open_clip"),
    "trainer": ("trainer", "against_bare_loop", "the Trainer with data and logging against a bare loop"),
    "loss_time": ("loss", "time_of_tiles", "the loss in tiles against the whole matrix: time"),
    "loss_memory": ("loss", "memory_of_tiles", "the loss in tiles against the whole matrix: memory"),
    "gradient_cache": ("gradient_cache", "against_plain_batch", "a large batch in chunks against a small one"),
    "frozen_towers": ("frozen", "against_open_clip_locked", "training the heads alone against open_clip --lock-*"),
    "frozen_text": ("frozen", "share_of_text", "the text side's share of a step with its tower frozen"),
    "jpeg": ("jpeg", "against_open_clip", "12-megapixel JPEG to 224 px against open_clip's transform"),
    "jpeg_evaluation": (
        "jpeg",
        "evaluation_against_open_clip",
        "JPEGs of 0.3 and 12 megapixels, whole, as evaluation opens them",
    ),
    "opening": ("opening", "against_its_towers", "opening a saved pair against opening its two towers"),
    "import": ("importing", "above_transformers", "import hf_clip above the classes that it extends"),
}
