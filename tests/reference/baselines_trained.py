"""Reference numbers for the losses of masf-baselines' trained methods, on seeded tensors.

    python tests/reference/baselines_trained.py > tests/data/baselines_trained.json

Needs torch and anomalib (2.7.0 made the numbers). Every case has inputs, the value of a loss, and its gradient by autograd.
"""

import json

import torch
from anomalib.models.image.cfa.loss import CfaLoss

torch.manual_seed(11)
CASES = {}


def numbers(tensor):
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()] if tensor.ndim <= 1 else [numbers(row) for row in tensor]


def rounded(*shape, scale=1.0):
    return (torch.randn(*shape) * scale * 1000).round() / 1000


def cfa():
    """anomalib's loss: the K nearest centres attract, those from the J-th on repel; radii below and above most distances."""
    for name, radius in (("cfa_outside", 0.5), ("cfa_inside", 1.6)):
        descriptors, centres = rounded(10, 4, scale=0.6).requires_grad_(), rounded(12, 4, scale=0.6)
        distance = descriptors.pow(2).sum(1, keepdim=True) + centres.pow(2).sum(1) - 2 * descriptors @ centres.T
        loss = CfaLoss(num_nearest_neighbors=3, num_hard_negative_features=3, radius=radius)(distance[None])
        loss.backward()
        CASES[name] = dict(
            descriptors=numbers(descriptors.detach()), centres=numbers(centres), radius=radius, nearest=3, negatives=3,
            loss=float(loss), gradient=numbers(descriptors.grad))


def plan(cost, epsilon=0.05, rounds=30):
    """The entropic plan between equal weights: scaling of the kernel's rows and columns, from the definition, in 64 bits."""
    kernel = torch.exp(-cost.double() / epsilon)
    v = torch.ones(cost.shape[1], dtype=torch.double)
    for _ in range(rounds):
        u = 1 / cost.shape[0] / (kernel @ v)
        v = 1 / cost.shape[1] / (kernel.T @ u)
    return u[:, None] * kernel * v


def rdpp():
    """The terms of RD++: cosines and the contrast by torch's own losses, the divergence by scaling of the plain kernel."""
    shape = (3, 6, 5)
    noised, noised_projection = rounded(*shape), rounded(*shape)
    # Close enough to the noised features that the contrast of some images is above its margin.
    projection = ((0.8 * noised + rounded(*shape, scale=0.9)) * 1000).round() / 1000
    projection = projection.requires_grad_()
    points = torch.nn.functional.normalize(projection, dim=-1)

    def transported(x, y):
        cost = torch.cdist(x, y).pow(2) if x is not y else (x[:, None] - y[None]).pow(2).sum(-1)
        return (cost * plan(cost.detach())).sum()

    divergence = lambda x, y: transported(x, y) - 0.5 * transported(x, x) - 0.5 * transported(y, y)
    transport = sum(divergence(points[i], points[j]) for i, j in ((0, 1), (1, 2), (2, 0))) / 3
    flat = lambda x: x.reshape(x.shape[0], -1)
    reconstruction = (1 - torch.nn.CosineSimilarity()(flat(noised_projection), flat(projection))).mean()
    contrast = torch.nn.CosineEmbeddingLoss(margin=0.5)(flat(noised), flat(projection), target=-torch.ones(3))
    (transport + 0.01 * reconstruction + 0.1 * contrast).backward()
    CASES["rdpp"] = dict(
        shape=shape, noised=numbers(noised.flatten()), noised_projection=numbers(noised_projection.flatten()),
        projection=numbers(projection.detach().flatten()), transport=float(transport), reconstruction=float(reconstruction),
        contrast=float(contrast), distillation=float((1 - torch.nn.CosineSimilarity()(flat(noised), flat(projection.detach()))).mean()),
        gradient=numbers(projection.grad.flatten()))


def adtr():
    """One layer of encoder and decoder by torch's own attention, layer norm and mean square error."""
    positions, channels, width, heads, hidden = 4, 5, 8, 2, 16
    P = {}

    def take(name, *shape, scale=0.4):
        P[name] = rounded(*shape, scale=scale).requires_grad_()

    take("input", channels, width), take("positions", positions, width), take("queries", positions, width, scale=1.0)
    for attention in ("encoder0.self", "decoder0.self", "decoder0.cross"):
        for part in ("query", "key", "value", "out"):
            take(f"{attention}.{part}", width, width)
    for mlp in ("encoder0", "decoder0"):
        take(f"{mlp}.up", width, hidden), take(f"{mlp}.up.bias", hidden), take(f"{mlp}.down", hidden, width), take(f"{mlp}.down.bias", width)
    take("output", width, channels), take("bias", channels)

    def attend(name, queries, keys):
        split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
        q, k, v = split(queries @ P[f"{name}.query"]), split(keys @ P[f"{name}.key"]), split(keys @ P[f"{name}.value"])
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ P[f"{name}.out"]

    mlp = lambda name, x: torch.relu(x @ P[f"{name}.up"] + P[f"{name}.up.bias"]) @ P[f"{name}.down"] + P[f"{name}.down.bias"]
    norm = lambda x: torch.nn.functional.layer_norm(x, (width,))
    tokens = rounded(2, positions, channels)
    x = tokens @ P["input"] + P["positions"]
    x = norm(x + attend("encoder0.self", x, x))
    x = norm(x + mlp("encoder0", x))
    q = P["queries"].expand(2, -1, -1)
    q = norm(q + attend("decoder0.self", q, q))
    q = norm(q + attend("decoder0.cross", q, x))
    q = norm(q + mlp("decoder0", q))
    restored = q @ P["output"] + P["bias"]
    loss = torch.nn.functional.mse_loss(restored, tokens)
    loss.backward()
    pair = lambda x: (list(x.shape), numbers(x.detach().flatten()))
    CASES["adtr"] = dict(
        parameters={name: pair(value) for name, value in P.items()}, tokens=pair(tokens), loss=float(loss),
        restored=numbers(restored.detach().flatten()),
        gradients={name: numbers(P[name].grad.flatten()) for name in ("input", "decoder0.cross.query", "queries")})


def isstad():
    """A masked autoencoder of one layer each by torch's own attention and layer norm; the losses of both stages and their gradients."""
    rows, columns, channels, width, narrow, heads, ratio, cell = 2, 4, 5, 8, 4, 2, 2, 4
    positions, images, visible = rows * columns, 2, 3
    P = {}

    def take(name, *shape, scale=0.4):
        P[name] = rounded(*shape, scale=scale).requires_grad_()

    def affine(name, inputs, outputs):
        take(name, inputs, outputs), take(f"{name}.bias", outputs)

    affine("input", channels, width), affine("middle", width, narrow), affine("output", narrow, channels), affine("head", narrow, 2 * cell)
    take("mask", narrow)
    for name, size in (("encoder0", width), ("decoder0", narrow)):
        for part in ("query", "key", "value", "out"):
            take(f"{name}.{part}", size, size)
        affine(f"{name}.up", size, ratio * size), affine(f"{name}.down", ratio * size, size)

    def waves(size):
        """Sines and cosines of the row, then of the column, at frequencies that fall from 1 towards 1 / 10,000."""
        quarter = size // 4
        frequencies = 10_000.0 ** (-torch.arange(quarter, dtype=torch.double) / quarter)
        angles = lambda places: torch.outer(places.double(), frequencies)
        row, column = torch.arange(positions) // columns, torch.arange(positions) % columns
        return torch.cat([f(angles(places)) for places in (row, column) for f in (torch.sin, torch.cos)], 1).float()

    def affinely(name, x):
        return x @ P[name] + P[f"{name}.bias"]

    def layer(name, x):
        split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
        norm = lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:])
        q, k, v = (split(norm(x) @ P[f"{name}.{part}"]) for part in ("query", "key", "value"))
        x = x + torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ P[f"{name}.out"]
        return x + affinely(f"{name}.down", torch.relu(affinely(f"{name}.up", norm(x))))

    norm = lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:])
    tokens, normal = rounded(images, positions, channels), rounded(images, positions, channels)
    order = torch.stack([torch.randperm(positions) for _ in range(images)])
    labels = (torch.rand(images, positions, cell) < 0.3).float()
    pick = lambda x, places: torch.stack([x[image][places[image]] for image in range(images)])
    gradients = lambda names: {name: numbers(P[name].grad.flatten()) for name in names}

    code = norm(layer("encoder0", affinely("input", pick(tokens, order[:, :visible])) + waves(width)[order[:, :visible]]))
    hidden = P["mask"].expand(images, positions - visible, -1)
    x = layer("decoder0", torch.cat([affinely("middle", code), hidden], 1) + waves(narrow)[order])
    masked = torch.nn.functional.mse_loss(affinely("output", norm(x[:, visible:])), pick(tokens, order[:, visible:]))
    masked.backward()
    names = ("input", "mask", "encoder0.query", "decoder0.up", "output")
    first = gradients(names)
    for parameter in P.values():
        parameter.grad = None

    # The second stage: the encoder is fixed.
    code = norm(layer("encoder0", affinely("input", tokens) + waves(width))).detach()
    x = layer("decoder0", affinely("middle", code) + waves(narrow))
    logits = affinely("head", x)
    both = torch.stack([logits[..., :cell], logits[..., cell:]], -1)
    entropy = torch.nn.functional.cross_entropy(both.flatten(0, 2), labels.flatten().long(), weight=torch.tensor([3.0, 1.0]))
    restored = affinely("output", norm(x))
    restoration = torch.nn.functional.mse_loss(restored, normal)
    # Structural similarity in two windows of all rows and two columns.
    windows = lambda x: x.unflatten(1, (rows, 2, columns // 2)).transpose(1, 2).flatten(2, 3)
    a, b = windows(restored), windows(normal)
    covariance = ((a - a.mean(2, keepdim=True)) * (b - b.mean(2, keepdim=True))).mean(2)
    variances = a.var(2, correction=0) + b.var(2, correction=0)
    similarity = ((2 * a.mean(2) * b.mean(2) + 0.01**2) * (2 * covariance + 0.03**2)
                  / ((a.mean(2) ** 2 + b.mean(2) ** 2 + 0.01**2) * (variances + 0.03**2))).mean()
    loss = entropy + 0.5 * restoration + 0.1 * (1 - similarity)
    loss.backward()
    pair = lambda x: (list(x.shape), numbers(x.detach().flatten()))
    CASES["isstad"] = dict(
        grid=(rows, columns), channels=channels, cell=cell, width=width, narrow=narrow, heads=heads, ratio=ratio, visible=visible,
        parameters={name: pair(value) for name, value in P.items()}, tokens=pair(tokens), normal=pair(normal),
        order=[row.tolist() for row in order], labels=pair(labels), masked=float(masked), first=first,
        logits=numbers((both[..., 1] - both[..., 0]).flatten()), restored=numbers(restored.flatten()),
        entropy=float(entropy), restoration=float(restoration), similarity=float(similarity), loss=float(loss),
        second=gradients(("middle", "decoder0.value", "output", "head")))


cfa()
rdpp()
adtr()
isstad()
print(json.dumps(CASES, separators=(",", ":")))
