"""The methods that are compared, by name. A name `family:value` is one point of a sweep."""

from benchmarks.method.chain import Method

NO_ROWS = ("tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0")


def _plain(*extra: str) -> tuple[str, ...]:
    return ("tuning.ema.rule=none", *NO_ROWS, *extra)


def _rule(rule: str, *extra: str) -> tuple[str, ...]:
    return (f"tuning.ema.rule={rule}", *NO_ROWS, *extra)


def _curvature(kappa: float, tau: float, *extra: str) -> tuple[str, ...]:
    return _rule("curvature", f"tuning.ema.kappa={kappa}", f"tuning.ema.tau={tau}", *extra)


def _rehearsal(rows: int, share: float) -> tuple[str, ...]:
    return (f"tuning.rehearsal.rows_per_task={rows}", f"tuning.rehearsal.share={share}")


def _pseudo(rows: int, share: float, written: float = 0.5) -> tuple[str, ...]:
    return (
        f"tuning.pseudo_rehearsal.rows={rows}",
        f"tuning.pseudo_rehearsal.share={share}",
        f"tuning.pseudo_rehearsal.written={written}",
    )


CURVE = "tuning.curve=[0.25,0.5,0.75]"
BETAS = (0.9, 0.95, 0.97, 0.98, 0.99)
KAPPAS = (3, 10, 30, 100)
PERCENT = {1: 6, 2: 12, 5: 30, 10: 60}
"""Kept rows of 600 per task."""

_ALL = [
    Method("plain", _plain()),
    *(Method(f"fixed:{beta}", _rule("fixed", f"tuning.ema.beta={beta}"), "ema") for beta in BETAS),
    Method("paper", _rule("paper"), "ema"),
    Method("released", _rule("released"), "ema"),
    Method("scale_free", _rule("scale_free"), "ema"),
    *(Method(f"curvature during:{kappa}", _curvature(kappa, 0), "ema") for kappa in KAPPAS),
    *(Method(f"curvature at the end:{tau}", _curvature(0, tau), "ema") for tau in (0.1, 0.3, 1.0)),
    Method("curvature both", _curvature(30, 0.3), "ema"),
    *(Method(f"mix:{share}", _rule("fixed", CURVE), f"mix-{share}") for share in (0.25, 0.5, 0.75)),
    Method("plain chosen", _rule("fixed", CURVE), "choose:live,mix-0.25,mix-0.5,mix-0.75"),
    Method("fixed .98 chosen", _rule("fixed", "tuning.ema.beta=0.98", CURVE), "choose"),
    Method("curvature both chosen", _curvature(30, 0.3, CURVE), "choose"),
    *(
        Method(f"rehearsal {percent} %:{share}", (*_plain(), *_rehearsal(rows, share)))
        for percent, rows in PERCENT.items()
        for share in (0.05, 0.1, 0.2, 0.33)
    ),
    Method("rehearsal 5 % parent targets", (*_plain(), *_rehearsal(30, 0.2), "tuning.rehearsal.targets=parent")),
    *(Method(f"pseudo-rehearsal:{share}", (*_plain(), *_pseudo(60, share))) for share in (0.1, 0.2, 0.33)),
    Method("pseudo-rehearsal new inputs", (*_plain(), *_pseudo(60, 0.2, 0))),
    Method("pseudo-rehearsal written inputs", (*_plain(), *_pseudo(60, 0.2, 1))),
    *(
        Method(f"pseudo-rehearsal + curvature:{kappa}", (*_curvature(kappa, 0.1), *_pseudo(60, 0.2)), "ema")
        for kappa in (3, 10)
    ),
    *(
        Method(
            f"pseudo-rehearsal:0.33 + curvature decay:{kappa}",
            (*_curvature(kappa, 0.1, "tuning.ema.decay=0.5"), *_pseudo(120, 0.33)),
            "ema",
        )
        for kappa in (3, 10)
    ),
    Method("pseudo-rehearsal:0.33 + curvature:1", (*_curvature(1, 0.03), *_pseudo(120, 0.33)), "ema"),
    Method("pseudo-rehearsal:0.33 + curvature:3", (*_curvature(3, 0.1), *_pseudo(120, 0.33)), "ema"),
    Method("rehearsal 5 % + pseudo", (*_plain(), *_rehearsal(30, 0.2), *_pseudo(60, 0.2))),
    Method("rehearsal 5 %:0.33 + pseudo:0.33", (*_plain(), *_rehearsal(30, 0.33), *_pseudo(120, 0.33))),
    Method(
        "rehearsal 5 %:0.33 + pseudo:0.33 + curvature:1",
        (*_curvature(1, 0.03), *_rehearsal(30, 0.33), *_pseudo(120, 0.33)),
        "ema",
    ),
    Method("rehearsal 5 % + curvature", (*_curvature(3, 0.1), *_rehearsal(30, 0.2)), "ema"),
    Method("rehearsal 5 % + pseudo + curvature", (*_curvature(3, 0.1), *_rehearsal(30, 0.2), *_pseudo(60, 0.2)), "ema"),
    Method("fixed .98 in bfloat16", _rule("fixed"), "ema", "bfloat16"),
    Method("scale_free in bfloat16", _rule("scale_free"), "ema", "bfloat16"),
    *(Method(f"curvature decay:{x}", _curvature(30, 0.3, f"tuning.ema.decay={x}"), "ema") for x in (0, 0.5, 0.8)),
    *(Method(f"curvature damping:{x}", _curvature(30, 0.3), "ema", f"damping:{x}") for x in (0.1, 1.0)),
    Method("O-LoRA", _plain(), "live", "orthogonal:0.5", ("adapter.rank=64", "adapter.alpha=128")),
    Method("default", point="choose"),
    Method("default without rows", ("tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0.66"), "choose"),
    Method("joint:plain", _plain()),
    Method("joint:default", _plain()),
]
METHODS = {method.name: method for method in _ALL}
SETS = {
    "main": [
        "plain", "fixed:0.95", "fixed:0.98", "fixed:0.99", "curvature both", "pseudo-rehearsal:0.2",
        "pseudo-rehearsal + curvature:3", "rehearsal 5 %:0.2", "joint:plain",
    ],
    "shipped": ["default", "default without rows", "plain", "joint:default"],
    "all": list(METHODS),
}  # fmt: skip
