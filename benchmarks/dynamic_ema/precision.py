"""How much of the way to the live weights an EMA goes when it is kept in bfloat16 instead of float32.

Adapter-like numbers: lora_A uniform as PEFT draws it, lora_B normal with standard deviation 0.02. The live weights
stand still, away from the average by a normal draw of 10 % of the tensor's root mean square. Share of the L1 gap
closed after 500 steps, 1 - |theta - theta*|_1 / |theta - theta*_0|_1.
"""

import torch

STEPS, GAP = 500, 0.1
SHAPES = ((8, 576), (1536, 8))


def closed(dtype: torch.dtype, alpha: float, seed: int = 0) -> tuple[float, float]:
    """(share of the gap closed, share of entries that never moved)."""
    draw = torch.Generator().manual_seed(seed)
    a = (torch.rand(SHAPES[0], generator=draw) * 2 - 1) * SHAPES[0][1] ** -0.5
    b = torch.randn(SHAPES[1], generator=draw) * 0.02
    start = torch.cat([a.flatten(), b.flatten()]).bfloat16().float()
    size = torch.cat([t.square().mean().sqrt().expand(t.numel()) for t in (a, b)])
    live = (start + GAP * size * torch.randn(start.shape, generator=draw)).bfloat16().float()
    average = start.to(dtype, copy=True)
    for _ in range(STEPS):
        average.lerp_(live.to(dtype), alpha)
    left = (live - average.float()).abs().sum() / (live - start).abs().sum()
    apart = live != start
    return 1 - left.item(), (average.float() == start)[apart].float().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    print("| alpha | exact | float32 | bfloat16 | entries that never moved in bfloat16 |\n|---|---|---|---|---|")
    for alpha in (1e-2, 2.4e-3, 1e-3):
        exact = 1 - (1 - alpha) ** STEPS
        single, (half, still) = closed(torch.float32, alpha)[0], closed(torch.bfloat16, alpha)
        print(f"| {alpha:g} | {exact:.3f} | {single:.3f} | {half:.3f} | {100 * still:.0f} % |")


if __name__ == "__main__":
    main()
