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


cfa()
rdpp()
adtr()
print(json.dumps(CASES))
