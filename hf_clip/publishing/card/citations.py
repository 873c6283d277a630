"""Papers that model cards cite."""

from collections.abc import Iterable

# key: (title, authors, arXiv identifier)
_PAPERS = {
    "clip": (
        "Learning Transferable Visual Models From Natural Language Supervision",
        "Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and Agarwal, "
        "Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and Krueger, Gretchen and "
        "Sutskever, Ilya",
        "2103.00020",
    ),
    "infonce": (
        "Representation Learning with Contrastive Predictive Coding",
        "van den Oord, Aaron and Li, Yazhe and Vinyals, Oriol",
        "1807.03748",
    ),
    "siglip": (
        "Sigmoid Loss for Language Image Pre-Training",
        "Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas",
        "2303.15343",
    ),
    "lit": (
        "LiT: Zero-Shot Transfer with Locked-image text Tuning",
        "Zhai, Xiaohua and Wang, Xiao and Mustafa, Basil and Steiner, Andreas and Keysers, Daniel and Kolesnikov, "
        "Alexander and Beyer, Lucas",
        "2111.07991",
    ),
    "resnet": (
        "Deep Residual Learning for Image Recognition",
        "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
        "1512.03385",
    ),
    "vit": (
        "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        "Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and Zhai, Xiaohua and "
        "Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and Gelly, Sylvain and "
        "Uszkoreit, Jakob and Houlsby, Neil",
        "2010.11929",
    ),
    "deit": (
        "Training data-efficient image transformers & distillation through attention",
        "Touvron, Hugo and Cord, Matthieu and Douze, Matthijs and Massa, Francisco and Sablayrolles, Alexandre and "
        "Jégou, Hervé",
        "2012.12877",
    ),
    "dinov2": (
        "DINOv2: Learning Robust Visual Features without Supervision",
        "Oquab, Maxime and Darcet, Timothée and Moutakanni, Théo and others",
        "2304.07193",
    ),
    "swin": (
        "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        "Liu, Ze and Lin, Yutong and Cao, Yue and Hu, Han and Wei, Yixuan and Zhang, Zheng and Lin, Stephen and Guo, "
        "Baining",
        "2103.14030",
    ),
    "convnext": (
        "A ConvNet for the 2020s",
        "Liu, Zhuang and Mao, Hanzi and Wu, Chao-Yuan and Feichtenhofer, Christoph and Darrell, Trevor and Xie, "
        "Saining",
        "2201.03545",
    ),
    "efficientnet": (
        "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        "Tan, Mingxing and Le, Quoc V.",
        "1905.11946",
    ),
    "regnet": (
        "Designing Network Design Spaces",
        "Radosavovic, Ilija and Kosaraju, Raj Prateek and Girshick, Ross and He, Kaiming and Dollár, Piotr",
        "2003.13678",
    ),
    "bert": (
        "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
        "Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina",
        "1810.04805",
    ),
    "distilbert": (
        "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
        "Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas",
        "1910.01108",
    ),
    "roberta": (
        "RoBERTa: A Robustly Optimized BERT Pretraining Approach",
        "Liu, Yinhan and Ott, Myle and Goyal, Naman and Du, Jingfei and Joshi, Mandar and Chen, Danqi and Levy, Omer "
        "and Lewis, Mike and Zettlemoyer, Luke and Stoyanov, Veselin",
        "1907.11692",
    ),
    "xlm-roberta": (
        "Unsupervised Cross-lingual Representation Learning at Scale",
        "Conneau, Alexis and Khandelwal, Kartikay and Goyal, Naman and Chaudhary, Vishrav and Wenzek, Guillaume and "
        "Guzmán, Francisco and Grave, Edouard and Ott, Myle and Zettlemoyer, Luke and Stoyanov, Veselin",
        "1911.02116",
    ),
    "mpnet": (
        "MPNet: Masked and Permuted Pre-training for Language Understanding",
        "Song, Kaitao and Tan, Xu and Qin, Tao and Lu, Jianfeng and Liu, Tie-Yan",
        "2004.09297",
    ),
    "electra": (
        "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
        "Clark, Kevin and Luong, Minh-Thang and Le, Quoc V. and Manning, Christopher D.",
        "2003.10555",
    ),
    "sentence-bert": (
        "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        "Reimers, Nils and Gurevych, Iryna",
        "1908.10084",
    ),
    "minilm": (
        "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers",
        "Wang, Wenhui and Wei, Furu and Dong, Li and Bao, Hangbo and Yang, Nan and Zhou, Ming",
        "2002.10957",
    ),
}
_TIMM = """@misc{timm,
  title  = {PyTorch Image Models},
  author = {Wightman, Ross},
  year   = {2019},
  doi    = {10.5281/zenodo.4414861},
}"""


def bibtex_of(keys: Iterable[str]) -> str:
    """BibTeX of papers, and of "timm", each once; of those alone that are known here.

    Args:
        keys: of papers, or BibTeX itself.
    """
    return "\n\n".join(_bibtex(key) for key in dict.fromkeys(keys) if is_citation(key))


def is_citation(key: str) -> bool:
    """Whether it is BibTeX, or the key of a paper that is known here."""
    return key.startswith("@") or key in _PAPERS or key == "timm"


def _bibtex(key: str) -> str:
    if key.startswith("@"):
        return key.strip()
    if key == "timm":
        return _TIMM
    title, authors, identifier = _PAPERS[key]
    fields = {
        "title": title.replace("&", r"\&"),
        "author": authors,
        "year": f"20{identifier[:2]}",
        "eprint": identifier,
        "archivePrefix": "arXiv",
    }
    lines = "".join(f"  {name:13} = {{{value}}},\n" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}}}"
