"""The networks of `benches/peers/run backbone`, each as one list of operations that all sides are made from.

An operation is a dict with `op` (conv, pool, affine), `input` and `residual` (indices of earlier values; 0 is the image), geometry,
`act` and the names of its tensors in the weights file; `bn` names a batch norm that follows a convolution. The lists follow the
networks' definitions: He et al. 2015 and 2016, Zagoruyko and Komodakis 2016, Sandler et al. 2018, with the tensor names of
masf-backbone's registry.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

EPSILON = 1e-5


class Builder:
    def __init__(self):
        self.ops, self.tensors, self.taps = [], {}, []

    def tensor(self, name, value):
        self.tensors[name] = value
        return name

    def conv(self, x, name, shape, stride, act, residual=None, bn=None, bias=True):
        out, per_group, kernel = shape
        fan = per_group * kernel * kernel
        op = dict(op="conv", input=x, stride=stride, pad=kernel // 2, act=act, residual=residual, bias=None, bn=None)
        op["groups"] = out if per_group == 1 else 1
        op["weight"] = self.tensor(f"{name}.weight", torch.randn(out, per_group, kernel, kernel) * (1.4 / fan) ** 0.5)
        if bn:
            self.tensors |= {f"{bn}.weight": torch.rand(out) * 0.4 + 0.6, f"{bn}.bias": torch.randn(out) * 0.1}
            self.tensors |= {f"{bn}.running_mean": torch.randn(out) * 0.1, f"{bn}.running_var": torch.rand(out) + 0.5}
            op["bn"] = bn
        elif bias:
            op["bias"] = self.tensor(f"{name}.bias", torch.randn(out) * 0.1)
        self.ops.append(op)
        return len(self.ops)

    def pool(self, x):
        self.ops.append(dict(op="pool", input=x))
        return len(self.ops)

    def affine(self, x, name, channels, act):
        scale = self.tensor(f"{name}.scale", torch.rand(channels) * 0.4 + 0.6)
        shift = self.tensor(f"{name}.shift", torch.randn(channels) * 0.1)
        self.ops.append(dict(op="affine", input=x, scale=scale, shift=shift, act=act))
        return len(self.ops)


def resnet(blocks, width, stages):
    """ResNet of basic blocks (`width` None) or of bottlenecks with `width` inner channels in the first stage."""
    b = Builder()
    x = b.pool(b.conv(0, "conv1", (64, 3, 7), 2, "relu", bn="bn1", bias=False))
    channels = 64
    for stage, count in enumerate(blocks):
        outer = (64 if width is None else 256) << stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            skip = x
            if stride != 1 or channels != outer:
                skip = b.conv(x, f"{name}.downsample.0", (outer, channels, 1), stride, None, bn=f"{name}.downsample.1", bias=False)
            if width is None:
                y = b.conv(x, f"{name}.conv1", (outer, channels, 3), stride, "relu", bn=f"{name}.bn1", bias=False)
                x = b.conv(y, f"{name}.conv2", (outer, outer, 3), 1, "relu", skip, bn=f"{name}.bn2", bias=False)
            else:
                inner = width << stage
                y = b.conv(x, f"{name}.conv1", (inner, channels, 1), 1, "relu", bn=f"{name}.bn1", bias=False)
                y = b.conv(y, f"{name}.conv2", (inner, inner, 3), stride, "relu", bn=f"{name}.bn2", bias=False)
                x = b.conv(y, f"{name}.conv3", (outer, inner, 1), 1, "relu", skip, bn=f"{name}.bn3", bias=False)
            channels = outer
        if stage < stages:
            b.taps.append(x)
    b.ops = b.ops[: b.taps[-1]]
    return b


def resnet50_v2():
    b = Builder()
    x = b.affine(0, "input", 3, None)
    x = b.pool(b.conv(x, "stem", (64, 3, 7), 2, "relu"))
    channels = 64
    for stage, count in enumerate([3, 4, 6]):
        inner, outer = 64 << stage, 256 << stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            y = b.affine(x, f"{name}.preact", channels, "relu")
            if stage and not block:
                b.taps.append(y)
            skip = x if block else b.conv(y, f"{name}.downsample", (outer, channels, 1), stride, None, bias=False)
            z = b.conv(y, f"{name}.conv1", (inner, channels, 1), 1, "relu")
            z = b.conv(z, f"{name}.conv2", (inner, inner, 3), stride, "relu")
            x = b.conv(z, f"{name}.conv3", (outer, inner, 1), 1, None, skip, bias=False)
            channels = outer
    b.taps.append(b.affine(x, "layer4.0.preact", channels, "relu"))
    return b


def mobilenet_v2():
    b = Builder()
    x, channels, index = b.conv(0, "features.0.conv", (32, 3, 3), 2, "relu6"), 32, 0
    last = None
    for out, count, first in [(16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]:
        for block in range(count):
            index += 1
            name, y, inner = f"features.{index}", x, channels
            if index > 1:
                inner = channels * 6
                y = b.conv(x, f"{name}.expand", (inner, channels, 1), 1, "relu6")
            y = b.conv(y, f"{name}.depthwise", (inner, 1, 3), first if block == 0 else 1, "relu6")
            x = b.conv(y, f"{name}.project", (out, inner, 1), 1, None, x if block else None)
            channels = out
            if index in (3, 6, 13):
                b.taps.append(x)
            if index == 13:
                last = len(b.ops)
    b.conv(x, "features.18.conv", (1280, channels, 1), 1, "relu6")
    b.ops = b.ops[:last]
    return b


# Case, name in the registry, strides of the maps, definition.
CASES = [
    ("resnet18", "resnet18", [4, 8, 16, 32], lambda: resnet([2, 2, 2, 2], None, 4)),
    ("resnet50-v2", "resnet50-v2", [4, 8, 16], resnet50_v2),
    ("wide-resnet50-2", "wide-resnet50-2", [4, 8, 16], lambda: resnet([3, 4, 6, 3], 128, 3)),
    ("mobilenet-v2", "mobilenet-v2", [4, 8, 16], mobilenet_v2),
]


class Network(nn.Module):
    """The operations in PyTorch, batch norms as they come."""

    def __init__(self, builder):
        super().__init__()
        self.ops, self.taps = builder.ops, builder.taps
        self.names = {name: f"t{i}" for i, name in enumerate(builder.tensors)}
        for name, value in builder.tensors.items():
            self.register_buffer(self.names[name], value)

    def get(self, name):
        return None if name is None else getattr(self, self.names[name])

    def forward(self, image):
        values = [image]
        for op in self.ops:
            x = values[op["input"]]
            if op["op"] == "pool":
                x = F.max_pool2d(x, 3, 2, 1)
            elif op["op"] == "affine":
                scale, shift = self.get(op["scale"]), self.get(op["shift"])
                x = F.batch_norm(x, torch.zeros_like(scale), torch.ones_like(scale), scale, shift, eps=0.0)
            else:
                x = F.conv2d(x, self.get(op["weight"]), self.get(op["bias"]), op["stride"], op["pad"], 1, op["groups"])
                if op["bn"]:
                    part = [self.get(f"{op['bn']}.{name}") for name in ("running_mean", "running_var", "weight", "bias")]
                    x = F.batch_norm(x, *part, eps=EPSILON)
                if op["residual"] is not None:
                    x = x + values[op["residual"]]
            act = op.get("act")
            values.append(F.relu(x) if act == "relu" else F.relu6(x) if act == "relu6" else x)
        return tuple(values[tap] for tap in self.taps)


def folded(builder):
    """The operations and tensors with batch norms folded into the convolutions before them."""
    ops, tensors = [], dict(builder.tensors)
    for op in builder.ops:
        op = dict(op)
        if op.get("bn"):
            gain = tensors[f"{op['bn']}.weight"] / torch.sqrt(tensors[f"{op['bn']}.running_var"] + EPSILON)
            tensors[op["weight"]] = tensors[op["weight"]] * gain[:, None, None, None]
            op["bias"] = f"{op['bn']}.shift"
            tensors[op["bias"]] = tensors[f"{op['bn']}.bias"] - tensors[f"{op['bn']}.running_mean"] * gain
        ops.append(op)
    return ops, tensors
