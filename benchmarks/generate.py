"""Time the generation of frames of tokens beside the rate at which the machine reads memory, on one thread.

python benchmarks/generate.py [--batches 1 4 16] [--stream-tokens 16] [--json PATH]

Frames of 16 tokens (CarRacing, width 128, 4 layers) and of 128 tokens (roads, width 192, 6 layers) are drawn
by transformers over frames with each head; those of 129 tokens one by one by a stream of the size of
commaVQ's GPT, with a full ring of 2,580 tokens, with weights in fp32, bf16 and 8 bits. Weights are random.
The share is that of the read rate: the bytes of weights and cache that a frame or token has to read at least,
over the time that it took. Times are the best of the repeats.
"""

import bench
import torch
from rich.console import Console

from agent.int8 import with_int8_weights
from agent.nets import init_fan_in
from agent.tokenizer.image_tokenizer import ImageTokenizerConfig
from agent.world_model.attention import BlockConfig, rotary_frequencies
from agent.world_model.frame_heads import (
    AtOnceHeadConfig,
    FrameHeadConfig,
    MaskedHeadConfig,
    RasterHeadConfig,
)
from agent.world_model.token_stream import StreamCache, TokenStream, commavq_gpt
from agent.world_model.transformer import TransformerConfig

HEADS: dict[str, FrameHeadConfig] = {
    "at once": AtOnceHeadConfig(),
    "masked, 4 passes": MaskedHeadConfig(),
    "raster": RasterHeadConfig(),
}
FRAMES = {
    "CarRacing, 16 tokens": (
        ImageTokenizerConfig(kind="image", height=64, width=64, fsq_levels=[8, 5, 5, 5]),
        BlockConfig(width=128, layers=4),
    ),
    "roads, 128 tokens": (
        ImageTokenizerConfig(kind="image", fsq_levels=[7, 5, 5, 5, 5]),
        BlockConfig(width=192, layers=6, heads=6),
    ),
}
WEIGHTS = ("fp32", "bf16", "int8")


def read_rate(repeats: int = 5) -> float:
    """Bytes a second at which a long vector of floats is summed up: plain reading, on the threads in use."""
    values = torch.ones(2**26)
    return values.numel() * 4 / min(bench.seconds(values.sum, repeats))


@torch.no_grad()
def frame_seconds(
    tokenizer: ImageTokenizerConfig, blocks: BlockConfig, head: FrameHeadConfig, batch: int, frames: int
) -> tuple[float, float]:
    """Seconds for a frame of a batch of dreams of a transformer over frames, and the bytes it must read."""
    config = TransformerConfig(kind="transformer", tokenizer=tokenizer, blocks=blocks, head=head)
    model = config.build({"token": (tokenizer.build().tokens,)}, 2).eval()
    start = model.initial(batch)
    actions = torch.zeros(batch, frames, 2)
    best = min(bench.seconds(lambda: model.imagine_along(start, actions), 3))
    learnt = sum(p.numel() for p in model.transformer.parameters())
    learnt += sum(p.numel() for p in model.predict.parameters())
    cache = sum(start[name].numel() for name in ("keys", "values"))
    return best / frames, 4.0 * (learnt + cache)


def stream(weights: str) -> TokenStream:
    """A stream of commaVQ's GPT's size with rotary positions and random weights."""
    config = commavq_gpt().model_copy(update={"positions": "rotary"})
    with torch.device("meta"):
        model = config.build()
    model.to_empty(device="cpu").eval()
    for parameter in model.parameters():
        init_fan_in(parameter.data, parameter.shape[-1])
    frequencies = rotary_frequencies(config.blocks.head_size, config.rotary_base)
    if weights == "int8":
        with_int8_weights(model)
    elif weights == "bf16":
        model.bfloat16()
    model.frequencies = frequencies
    return model


@torch.no_grad()
def token_seconds(model: TokenStream, batch: int, tokens: int) -> tuple[float, float]:
    """Seconds for a token of a batch of streams with full caches, and the bytes that it must read."""
    c = model.config.blocks
    kind = model.embed.weight.dtype
    shape = (c.layers, batch, c.key_heads, model.config.context, c.head_size)
    cache = StreamCache(torch.zeros(shape, dtype=kind), torch.zeros(shape, dtype=kind), model.config.context)
    token = torch.zeros(batch, dtype=torch.long)

    def work() -> None:
        for _ in range(tokens):
            model.step(token, cache)

    best = min(bench.seconds(work, 2, warm_up=1))
    read = sum(p.nbytes for name, p in model.state_dict().items() if not name.startswith("embed"))
    return best / tokens, float(read + cache.keys.nbytes + cache.values.nbytes)


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    bench.option(parser, "--batches", [1, 4, 16], "dreams at once")
    bench.option(parser, "--frames", 40, "frames of a dream")
    bench.option(parser, "--stream-tokens", 16, "tokens of the stream that are timed; 0 leaves it out")
    bench.option(parser, "--threads", 1, "CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rate = read_rate()
    rows: list[dict[str, object]] = []

    def add(model: str, how: str, batch: int, seconds: float, tokens: int, read: float) -> None:
        share = read / seconds * (tokens if how in WEIGHTS else 1) / rate
        rows.append(
            {
                "model": model,
                "head or weights": how,
                "batch": batch,
                "ms_per_frame": seconds * 1e3,
                "tokens_per_second": batch * tokens / seconds,
                "share_of_read_rate": share,
            }
        )

    for name, (tokenizer, blocks) in FRAMES.items():
        tokens = tokenizer.build().tokens
        for how, head in HEADS.items():
            for batch in args.batches:
                seconds, read = frame_seconds(tokenizer, blocks, head, batch, args.frames)
                add(name, how, batch, seconds, tokens, read)
    for how in WEIGHTS if args.stream_tokens else ():
        model = stream(how)
        for batch in args.batches:
            seconds, read = token_seconds(model, batch, args.stream_tokens)
            add("commaVQ's GPT, 129 tokens", how, batch, 129 * seconds, 129, read)
    console = Console()
    console.print(f"read rate {rate / 1e9:.1f} GB/s, {args.threads} thread")
    table = bench.table("generation", *rows[0], names=2)
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)
    about = bench.machine(torch.device("cpu"))
    bench.write(args.json, {**about, "read_gb_per_second": rate / 1e9, "rows": rows})


if __name__ == "__main__":
    main()
