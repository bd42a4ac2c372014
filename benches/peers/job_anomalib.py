"""The anomalib side of job.py, in processes of its own so that its memory and its start can be measured.

    job_anomalib.py weights FILE                       seeded random weights of ResNet-18
    job_anomalib.py fit WEIGHTS IMAGES FOLDER          fits PatchCore, then exports it for torch and OpenVINO
    job_anomalib.py serve KIND FOLDER                  answers `inspect` and `folder` as examples/job_peer.rs does
    job_anomalib.py once KIND FOLDER IMAGE             one score, then the end
    job_anomalib.py installed                          bytes and number of the packages that it needs

KIND is torch, openvino (at 32 bits, as the others compute) or openvino-default (its own choice of precision).
"""

import os
import sys

THREADS = int(os.environ.get("MASF_THREADS", "2"))
os.environ |= {"OMP_NUM_THREADS": str(THREADS), "TRUST_REMOTE_CODE": "1", "HF_HUB_OFFLINE": "1"}
RATIO = 0.01
# Images that go through the network together.
BATCH = 32


def peak():
    """Largest resident memory so far, in MB. Not getrusage, whose maximum includes the process that started this one."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def weights(path):
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file({key: value.contiguous() for key, value in timm.create_model("resnet18", pretrained=False).state_dict().items()}, path)


def fit(weights, images, folder):
    import logging
    import time
    import warnings

    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore
    from safetensors.torch import load_file

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    # Neither thresholds nor pictures nor metrics: our side calibrates within the same measurement, this one does not.
    model = Patchcore(
        backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, coreset_sampling_ratio=RATIO, num_neighbors=9,
        post_processor=False, evaluator=False, visualizer=False)
    network = model.model.feature_extractor.feature_extractor
    missing, _ = network.load_state_dict(load_file(weights), strict=False)
    assert not missing, missing

    class Job(Folder):
        """Validates on one image, since the coreset is chosen when validation starts."""

        def val_dataloader(self):
            return torch.utils.data.DataLoader(torch.utils.data.Subset(self.train_data, [0]), collate_fn=self.train_data.collate_fn)

    data = Job(name="job", normal_dir=images, train_batch_size=BATCH, num_workers=0, test_split_mode="none", val_split_mode="none")
    engine = Engine(accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False)
    start = time.perf_counter()
    engine.fit(model=model, datamodule=data)
    seconds, memory = time.perf_counter() - start, peak()
    prototypes = len(model.model.memory_bank)
    model.eval()
    engine.export(model, "torch", export_root=folder)
    engine.export(model, "openvino", export_root=folder, input_size=(256, 256), onnx_kwargs={"dynamic_axes": {}, "dynamic_shapes": None})
    print("result", seconds, memory, prototypes, flush=True)


def found(folder, suffix):
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names if name.endswith(suffix)]
    assert len(paths) == 1, f"{suffix} in {folder}: {paths}"
    return paths[0]


def inferencer(kind, folder):
    import logging

    logging.disable(logging.WARNING)
    if kind == "torch":
        import torch
        from anomalib.deploy import TorchInferencer

        torch.set_num_threads(THREADS)
        return TorchInferencer(found(folder, ".pt"), device="cpu")
    from anomalib.deploy import OpenVINOInferencer

    os.chdir(folder)
    config = {"INFERENCE_NUM_THREADS": THREADS}
    if kind == "openvino":
        config["INFERENCE_PRECISION_HINT"] = "f32"
    return OpenVINOInferencer(found(folder, ".xml"), device="CPU", config=config)


def score(side, kind, path):
    if kind == "torch":
        import torch

        with torch.inference_mode():
            return float(side.predict(path).pred_score)
    import numpy
    from PIL import Image

    # The graph takes images of one size only, while that of torch resizes itself.
    image = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    return float(numpy.asarray(side.predict(image).pred_score).reshape(-1)[0])


def folder_scores(side, paths):
    """All images in batches through the exported torch model; decoding and resizing as the inferencer does."""
    import torch
    from anomalib.data.utils import read_image
    from torchvision.transforms.v2.functional import resize

    scores = []
    with torch.inference_mode():
        for start in range(0, len(paths), BATCH):
            images = [resize(read_image(path, as_tensor=True), [256, 256], antialias=True) for path in paths[start : start + BATCH]]
            scores += side.model(torch.stack(images)).pred_score.reshape(-1).tolist()
    return scores


def serve(kind, folder):
    import time

    side = inferencer(kind, folder)
    print("ready", flush=True)
    for line in sys.stdin:
        request, *paths = line.rstrip("\n").split("\t")
        start = time.perf_counter()
        answer = score(side, kind, paths[0]) if request == "inspect" else len(folder_scores(side, paths))
        print((time.perf_counter() - start) * 1e3, answer, flush=True)


def installed():
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    open_, seen, bytes_ = ["anomalib", "openvino", "onnx"], {}, 0
    while open_:
        name = open_.pop().lower().replace("_", "-")
        if name in seen or name.startswith(("nvidia-", "cuda-")) or name == "triton":
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        size = 0
        for file in package.files or []:
            path = package.locate_file(file)
            if path.is_file():
                size += path.stat().st_size
        seen[name] = size
        for text in package.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_.append(requirement.name)
    print("result", sum(seen.values()), len(seen))


def main():
    command, *words = sys.argv[1:]
    if command == "once":
        kind, folder, image = words
        print(score(inferencer(kind, folder), kind, image), flush=True)
        # Clearing up is not part of the time to the first score.
        os._exit(0)
    {"weights": weights, "fit": fit, "serve": serve, "installed": installed}[command](*words)


main()
