"""A tokenizer with finite scalar quantisation: pictures to codes and back, a few updates."""

import torch

from agent.tokenizer.fsq_vae import FSQVAE, FSQVAEConfig


def main() -> None:
    """Run the example; it prints what it shows."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = FSQVAE(FSQVAEConfig())
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=1e-3)
    # Roads of a sort: a grey stripe on green. (B, C, H, W)
    pictures = torch.zeros(16, 3, 64, 64, dtype=torch.uint8)
    pictures[:, 1] = 150
    for k in range(16):
        pictures[k, :, :, 2 * k + 8 : 2 * k + 20] = 100
    for step in range(30):
        loss, _ = tokenizer.loss(pictures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == 29:
            print(f"update {step:2d}: loss {loss.item():.4f}")
    with torch.no_grad():
        tokens = tokenizer.tokenize(pictures)
        back = tokenizer.decode(tokenizer.codes(tokens))
    print("tokens:", tuple(tokens.shape), tokens.dtype, "; pictures again:", tuple(back.shape))


if __name__ == "__main__":
    main()
