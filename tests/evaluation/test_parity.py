"""hf_clip's figures are CLIP_benchmark's, where that is installed; scripts/clip_benchmark_parity.py says how."""

import numpy as np
import pytest

pytest.importorskip("clip_benchmark")


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) >= "2.4.0", reason="its accuracy is for NumPy before 2.4")
def test_figures_are_those_of_clip_benchmark(capsys, monkeypatch):
    import clip_benchmark_parity as parity

    assert parity.main(["--seeds", "2"]) == 0
    *figures, verdict = capsys.readouterr().out.splitlines()
    names = {"acc1", "acc5", "mean_per_class_recall", "mean_average_precision"}
    names |= {f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in parity.KS}
    assert {line.split()[0] for line in figures} == names
    assert verdict.endswith("within 1e-06")
    # It would say so.
    evaluate = parity.evaluate_retrieval

    def worse(*arguments):
        outcome = evaluate(*arguments)
        outcome.metrics["text_retrieval_recall@1"] += 1e-3
        return outcome

    monkeypatch.setattr(parity, "evaluate_retrieval", worse)
    assert parity.main(["--seeds", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "largest difference: 1.0e-03, above 1e-06"
