"""The onnx package's own backend cases on fastcnn's importer."""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore")

from onnx.backend.test.loader import load_model_tests  # noqa: E402
from onnx.backend.test.runner import Runner  # noqa: E402

from fastcnn.onnx.backend import FastcnnBackend  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT
PLAIN = {FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}

# Operators that the importer does not have, with the reason. A case is excluded if it uses one of them.
EXCLUDED_OPERATORS = {
    "trigonometry and rounding, which no classic CNN has": """Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Floor Mod
        Round Sign Sin Sinh Tan""",
    "attention and recurrence": """Attention CausalConvWithState FlexAttention GRU LinearAttention LSTM RNN
        RotaryEmbedding SwiGLU TensorScatter""",
    "signal processing": "BlackmanWindow DFT HammingWindow HannWindow MelWeightMatrix STFT",
    "choosing by values: fastcnn's graphs have no comparisons, integers or positions as values": """ArgMax ArgMin
        Compress GatherElements GatherND Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual NonMaxSuppression
        OneHot ReverseSequence Scatter ScatterElements ScatterND TopK Unique Where Range EyeLike""",
    "sequences, optionals and control flow": """ConcatFromSequence If Loop OptionalGetElement OptionalHasElement Scan
        SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence""",
    "sampling and geometry beyond Resize": "AffineGrid Col2Im DeformConv GridSample RoiAlign",
    "text and tables": "ArrayFeatureExtractor Binarizer TfIdfVectorizer TreeEnsemble",
    "training steps, which fastcnn.optim takes": "Adagrad Adam Gradient Momentum",
    "bits, randomness, determinants": "Bernoulli BitCast Det",
    "products have no kernel": "ReduceProd",
    "functions with a jump, in no listed network": "Shrink ThresholdedRelu",
}
# Cases of operators that the importer has, by the pattern of their names, with the reason.
EXCLUDED_CASES = {
    r"_expanded(_ver\d+)?$": "the same case written with other operators; the operator itself is executed",
    r"empty_set|reshape_allowzero_reordered|slice_start_out_of_bounds|split_zero_size": "fastcnn has no empty arrays",
    r"^test_(operator_)?pow(_bcast_array|_example|_types_\w+)?$": "exponents that differ from element to element",
    r"^test_(training_)?dropout_default_mask|^test_training_dropout(_mask|_default\w*)?$|zero_ratio_mask$": (
        "a mask of booleans as an output, or random numbers in evaluation"
    ),
    r"^test_maxpool_with_argmax": "positions of maxima as an output",
    r"NCd1d2d3d4d5": "more than six dimensions",
}
REASONS = {operator: reason for reason, names in EXCLUDED_OPERATORS.items() for operator in names.split()}


def model_of(case):
    return case.model or onnx.load(str(Path(case.model_dir) / "model.onnx"))


def data_of(case):
    if case.data_sets:
        return case.data_sets
    sets = []
    for folder in sorted(Path(case.model_dir).glob("test_data_set*")):

        def arrays(kind, folder=folder):
            count = len(list(folder.glob(f"{kind}_*.pb")))
            tensors = (onnx.load_tensor(str(folder / f"{kind}_{i}.pb")) for i in range(count))
            return [onnx.numpy_helper.to_array(t) for t in tensors]

        sets.append((arrays("input"), arrays("output")))
    return sets


def of_float32(model):
    kinds = [v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]]
    tensors = all(v.type.HasField("tensor_type") for v in [*model.graph.input, *model.graph.output])
    return tensors and FLOAT in kinds and set(kinds) <= PLAIN


def reason_to_exclude(name, model):
    for pattern, reason in EXCLUDED_CASES.items():
        if re.search(pattern, name):
            return reason
    return next((REASONS[node.op_type] for node in model.graph.node if node.op_type in REASONS), None)


def run(kind):
    """(names of the cases that passed, {name: what went wrong}, reasons of the excluded ones) of one kind."""
    passed, failed, excluded = [], {}, Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind=kind)
    for case in cases:
        model = model_of(case)
        if not of_float32(model):
            continue
        reason = reason_to_exclude(case.name, model)
        if reason:
            excluded[reason] += 1
            continue
        try:
            rep = FastcnnBackend.prepare(model)
            for inputs, outputs in data_of(case):
                Runner.assert_similar_outputs(list(outputs), list(rep.run(list(inputs))), case.rtol, case.atol)
            passed.append(case.name)
        except Exception as error:
            failed[case.name] = f"{type(error).__name__}: {error}"[:300]
    return passed, failed, excluded


@pytest.mark.parametrize(
    "kind, least", [("node", 480), ("pytorch-converted", 82), ("pytorch-operator", 28), ("simple", 5)]
)
def test_every_float32_case_passes_or_is_excluded_for_a_named_reason(kind, least):
    passed, failed, excluded = run(kind)
    print(f"{kind}: {len(passed)} executed; excluded: {dict(excluded)}")
    assert failed == {}
    assert len(passed) >= least


def test_an_excluded_operator_is_one_that_the_importer_does_not_have():
    from fastcnn.onnx.operators import OPERATORS

    assert sorted(set(REASONS) & set(OPERATORS)) == []


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    "name",
    ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
     "zfnet512"],
)  # fmt: skip
def test_light_models(name):
    path = LIGHT / f"light_{name}.onnx"
    model = onnx.load(str(path))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [Runner.generate_dummy_data(v, 0, name, False) for v in model.graph.input if v.name not in weights]
    expected = onnx.numpy_helper.to_array(onnx.load_tensor(str(LIGHT / f"light_{name}_output_0.pb")))
    (got,) = FastcnnBackend.prepare(model).run(inputs)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-7)
