"""The models that are served, made by Kelpie's own training, and what is right about their answers.

Shape suffixes: N pictures, C channels, H/W size, K classes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import pictures
from benchmarks.children import ChildFailed, environment, own_python, run
from benchmarks.contestants import NO_AMX, WITHOUT_AMX, has_amx, serving_python
from training.settings import Settings

PRECISIONS = ("float32", "bfloat16", "int8")
_TRAINING_SECONDS = 900.0


def random_weights(data: Path, path: Path) -> None:
    """Weights of a ResNet-50 that nobody trained; batch norm fits the pictures, so that activations keep their size."""
    import torch
    from safetensors.torch import save_file
    from torchvision import models  # type: ignore[import-untyped]

    from inference.contract import InputContract
    from inference.preprocessing import preprocess
    from training.backbones import IMAGENET_NORMALISATION, calibrate

    torch.manual_seed(0)
    network = models.resnet50(weights=None)
    input = InputContract(224, 256, IMAGENET_NORMALISATION.mean, IMAGENET_NORMALISATION.std)
    some = [torch.from_numpy(preprocess(p.read_bytes(), input)) for p in pictures.sample(data, "train", 16)]
    calibrate(network, torch.stack(some))
    save_file(network.state_dict(), path)


def train(data: Path, folder: Path, *flags: str) -> Path:
    """Kelpie's training as it is; returns the folder of the model. Raises ChildFailed."""
    folder.mkdir(parents=True)
    argv = [own_python(), "-m", "training", "--data", str(data), "--output", str(folder), *flags]
    name = f"training for {folder.name}"
    run(argv, name=name, cwd=folder, env=environment(), timeout_seconds=_TRAINING_SECONDS)
    return folder / "model"


def precision_flags(precision: str) -> tuple[str, ...]:
    """How training is told the precision; float32 is its default."""
    return () if precision == "float32" else ("--precision", precision)


def speed_models(data: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Archives of the random ResNet-50 by precision, and for those that could not be made the reason.

    The agreement gate is open for them: agreement of random weights means nothing.
    """
    folder.mkdir(parents=True)
    weights = folder / "resnet50.safetensors"
    random_weights(data, weights)
    flags: tuple[str, ...] = (
        "--backbone",
        "resnet50",
        "--weights",
        "channel",
        "--weights-path",
        str(weights),
        "--image-size",
        "224",
    )
    flags += ("--epochs", "1")
    made, missing = {}, {}
    for precision in PRECISIONS:
        gate = () if precision == "float32" else ("--min-agreement", "0")
        try:
            model = train(data, folder / f"resnet50-{precision}", *flags, *precision_flags(precision), *gate)
        except ChildFailed as error:
            if precision == "float32":
                raise
            missing[precision] = f"training refused it: {str(error).splitlines()[-1][:200]}"
            continue
        says = served_precision(model)
        if says == precision:
            made[precision] = model
        else:
            missing[precision] = f"training fell back to {says}"
    return made, missing


def served_precision(model: Path) -> str:
    """What the archive's contract says it is computed in."""
    return str(json.loads((model / "model.json").read_text(encoding="utf-8")).get("precision", "float32"))


def quality(data: Path, folder: Path, epochs: int, large_count: int) -> dict[str, dict[str, str]]:
    """How right a trained EfficientNet-Lite0 is in each precision, by kind of picture and then by precision.

    Of all test pictures, and of `large_count` of them at 12 megapixels, whose decoding is scaled. Agreement is with the
    trained network in eager PyTorch, which gets whole pictures. Measured with the handler of the archive, picture by
    picture, as it is served. The agreement gate is open, so that this is about the precision whatever its agreement on
    the validation pictures; what the gate would say is added.
    """
    small = pictures.sample(data, "test", pictures.IMAGE_COUNT)
    large = pictures.large_jpegs(data, folder / "large", large_count)
    of_large = pictures.sample(data, "test", large_count)
    kinds = {"small": (small, small), "large": (large, of_large)}
    expected: dict[str, list[str]] = {}
    said: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for precision in PRECISIONS:
        flags = ("--weights", "package", "--image-size", "224", "--epochs", str(epochs), *precision_flags(precision))
        if precision != "float32":
            flags += ("--min-agreement", "0")
        try:
            model, missing = train(data, folder / f"lite0-{precision}", *flags), ""
        except ChildFailed as error:
            missing = f"training refused it: {str(error).splitlines()[-1][:200]}"
        else:
            served = served_precision(model)
            missing = "" if served == precision else f"training fell back to {served}"
        if missing:
            for of_kind in said.values():
                of_kind[precision] = missing
            continue
        if precision == "float32":
            expected = {kind: by_eager_pytorch(model, files) for kind, (files, _) in kinds.items()}
        refused = gate_says(folder / f"lite0-{precision}")
        computed: dict[str, Mapping[str, str]] = {precision: {}}
        if precision == "int8" and has_amx():
            computed[WITHOUT_AMX.removeprefix("Kelpie ")] = NO_AMX
        for name, env in computed.items():
            for kind, (files, sources) in kinds.items():
                answers = classify(model, files, env)
                right = _share(answers, [source.parent.name for source in sources])
                same = _share(answers, expected[kind])
                at = "" if kind == "small" else f" of {len(files)}, at 12 megapixels"
                said[kind][name] = f"dogs: test {right:.1%}{at}, agreement {same:.1%}{refused}"
    return said


def _share(answers: Sequence[str], expected: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(answers)


def by_eager_pytorch(model: Path, files: Sequence[Path]) -> list[str]:
    """The best class of each picture, decoded at its full size, by the trained EfficientNet-Lite0 in eager PyTorch."""
    import torch
    from safetensors.torch import load_file

    from inference.contract import ModelContract
    from inference.preprocessing import decode, resize_and_crop, to_tensor
    from training.backbones import build

    contract = ModelContract.load(model)
    network = build("efficientnet_lite0", len(contract.classes), source="none", path=None, seed=0).eval()
    network.load_state_dict(load_file(model / "model.safetensors"))

    def best(path: Path) -> str:
        x_CHW = to_tensor(resize_and_crop(decode(path.read_bytes()), contract.input), contract.input)
        with torch.no_grad():
            return contract.classes[int(network(torch.from_numpy(x_CHW)[None]).argmax())]

    return [best(path) for path in files]


def gate_says(job: Path) -> str:
    """What is to be added of a model that the agreement gate, at its default, would have kept in float32."""
    choice = json.loads((job / "output" / "evaluation.json").read_text(encoding="utf-8"))["precision"]
    agreement, least = choice["agreement"], Settings.min_agreement
    if agreement is None or agreement >= least:
        return ""
    return f"; its {agreement:.1%} on {choice['split']} pictures are below the gate's {least:.0%}"


def classify(model: Path, files: Sequence[Path], env: Mapping[str, str]) -> list[str]:
    """The best class of each picture by the archive's own handler, in the serving environment with `env` besides."""
    program = (
        "import sys, json; from inference.handler import Request, model_fn, predict_fn; m = model_fn(sys.argv[1]);"
        "print(json.dumps([predict_fn(Request(open(p, 'rb').read(), 1), m)[0]['class'] for p in json.load(sys.stdin)]))"
    )
    answer = subprocess.run(
        [str(serving_python()), "-c", program, str(model)],
        input=json.dumps([str(path) for path in files]),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(model / "code"), "PYTHONDONTWRITEBYTECODE": "1", **env},
        timeout=_TRAINING_SECONDS,
        check=False,
    )
    if answer.returncode != 0:
        raise ChildFailed(f"the handler of {model.parent.name} failed:\n{answer.stderr[-2000:]}")
    best: list[str] = json.loads(answer.stdout.splitlines()[-1])
    return best


def expectations(
    model: Path, files: dict[str, list[Path]], classes: list[str]
) -> dict[str, dict[str, list[str] | None]]:
    """The right answers, by eager PyTorch: for the original's preprocessing and for Kelpie's."""
    import torch

    from benchmarks.baselines.network import load as load_network
    from benchmarks.baselines.network import logits
    from inference.contract import ModelContract
    from inference.preprocessing import preprocess

    network = load_network(model)
    contract = ModelContract.load(model)

    def original(path: Path) -> str:
        numbers = logits(network, path.read_bytes())
        return classes[max(range(len(numbers)), key=numbers.__getitem__)]

    def ours(path: Path) -> str:
        with torch.no_grad():
            logits_NK = network(torch.from_numpy(preprocess(path.read_bytes(), contract.input))[None])
        return classes[int(logits_NK.argmax())]

    return {
        "original": {kind: [original(path) for path in paths] for kind, paths in files.items()},
        "kelpie": {kind: [ours(path) for path in paths] for kind, paths in files.items()},
    }
