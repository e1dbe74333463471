# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Speed of exported networks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.tables import JsonFile, Rounds, by_turns, report
from segan_monai.export import ExportedBundle


def exports(
    rounds: Rounds = 5,
    bundle: Annotated[
        list[str] | None, typer.Option(help="folder in bundles/; can be repeated; by default all")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare onnxruntime with PyTorch on the bundles' networks, in float32 on the same number of threads.

    Weights are random; L-SNet's heatmap threshold is lowered so that objects are found. Its exported network processes
    the maximum number of RoIs, PyTorch only those found.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    folders = [Path("bundles") / name for name in bundle or sorted(p.name for p in Path("bundles").iterdir())]
    rows = []
    for folder in folders:
        with tempfile.TemporaryDirectory() as place:
            made = ExportedBundle(folder, Path(place) / "model.pt", overrides={"heatmap_threshold": 0.04})
            torch.manual_seed(0)
            torch.save(made.parser.get_parsed_content("network_def").state_dict(), made.weights)
            file = made.export("onnx", Path(place) / "model.onnx")
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        image = made.example()[: 1 if made.fixed_size else 2]
        with torch.inference_mode():
            sides = {
                "torch": lambda network=made.network, image=image: network(image),
                "onnxruntime": lambda session=session, image=image: session.run(None, {"image": image.numpy()})[0],
            }
            difference = float((sides["torch"]() - torch.from_numpy(sides["onnxruntime"]())).abs().max())
            seconds = by_turns(sides, rounds)
        row = {"bundle": folder.name, "input": "x".join(map(str, image.shape))}
        row |= {f"{name} ms": round(1000 * value, 1) for name, value in seconds.items()}
        row |= {"ratio": round(seconds["torch"] / seconds["onnxruntime"], 2), "logits differ by": f"{difference:.1g}"}
        rows.append(row)
    report("onnxruntime compared with PyTorch", rows, json_file)
