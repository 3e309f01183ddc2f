"""Run inside the real host: build its backbones, run them and save what they did.

usage: python -m dos_plugin.cpu host_backbones.py CASES_IN RESULTS_OUT
"""

import inspect
import sys

import torch


def levels(out):
    """The tensors of every level of a pooled point, coarsest first."""
    if torch.is_tensor(out):
        return [dict(feat=out.detach())]
    found = []
    while True:
        keys = ("feat", "coord", "grid_coord", "batch", "offset", "pooling_inverse")
        level = {k: out[k] for k in keys if k in out.keys()}
        found.append({k: v.detach().clone() for k, v in level.items()})
        if "pooling_parent" not in out.keys():
            return found
        out = out["pooling_parent"]


def run(model, batch, seed=7):
    """One training forward and backward, then one eval forward, each after seeding torch.

    Stochastic depth is switched off, for its random stream is up to its library; its
    probabilities are returned.
    """
    drops = [m for m in model.modules() if hasattr(m, "drop_prob")]
    drop_probs = [m.drop_prob for m in drops]
    for module in drops:
        module.drop_prob = 0.0
    model.train()
    torch.manual_seed(seed)
    out = model(dict(batch))
    feat = out if torch.is_tensor(out) else out.feat
    weights = torch.sin(torch.arange(feat.numel(), dtype=feat.dtype)).view_as(feat)
    (feat * weights).sum().backward()
    grads = {
        key: p.grad.clone()
        for key, p in model.state_dict(keep_vars=True).items()
        if getattr(p, "grad", None) is not None
    }
    trained = levels(out)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        evaluated = levels(model(dict(batch)))
    return dict(drops=drop_probs, train=trained, eval=evaluated, grads=grads, state_after=state)


def arguments(cls):
    """Names and defaults of the constructor's arguments."""
    found = inspect.signature(cls.__init__).parameters.items()
    required = inspect.Parameter.empty
    return {k: "required" if p.default is required else p.default for k, p in found if k != "self"}


def main(cases_in, results_out):
    from pointcept.models.builder import MODELS, build_model

    cases = torch.load(cases_in)
    results = {}
    for name, case in cases.items():
        torch.manual_seed(3)
        model = build_model(case["cfg"])
        state = {key: value.clone() for key, value in model.state_dict().items()}
        frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
        order = [key for key, _ in model.named_parameters()]
        results[name] = dict(state=state, frozen=frozen, order=order, **run(model, case["batch"]))
    kinds = ("PT-v3m1", "PT-v3m2", "SpUNet-v1m1")
    signatures = {kind: arguments(MODELS.get(kind)) for kind in kinds}
    torch.save(dict(results=results, signatures=signatures), results_out)


if __name__ == "__main__":
    main(*sys.argv[1:])
