"""gpt: sizes, tied heads, padding, causality, the cache, and that it is Llama's network where its options say so."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from danlu import registry
from danlu.errors import PartError
from danlu.layers.transformer.language_model import LanguageModel
from danlu.parts.models.gpt import SIZES, Config
from danlu.recipe import Part
from danlu.terms import InputSpec, OutputSpec
from danlu.training.setup import parameter_groups

CODES = 23
TEXT = {"text": InputSpec("tokens", (12,), cardinalities=(CODES,))}
OPTIONS = [
    {},
    {"num_key_value_heads": 2, "feed_forward": "swiglu", "qk_norm": False},
    {
        "positions": "learned",
        "normalization": "layer",
        "feed_forward": "gelu",
        "bias": True,
        "tied": True,
        "qk_norm": False,
    },
    {"positions": "learned", "num_key_value_heads": 1, "feed_forward_width": 20},
]
# float32 keeps 7 digits; kernels of other shapes sum in another order, and the layers pass the
# difference on
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def built(**options: object) -> LanguageModel:
    torch.manual_seed(5)
    config = Config.model_validate({"size": "tiny", "num_layers": 2, "width": 32, **options})
    module = registry.build_model(
        Part("gpt", config), TEXT, OutputSpec(CODES, per="token", causal=True)
    )
    assert isinstance(module, LanguageModel)
    return module


def lively(module: LanguageModel) -> LanguageModel:
    """In evaluation mode and away from the start, where all logits are close to 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(5, CODES, (rows, length), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("options", OPTIONS)
def test_a_token_is_told_from_those_before_it_alone(options):
    module, x = lively(built(**options)), tokens(3, 10)
    logits, changed = module({"text": x}), x.clone()
    assert logits.shape == (3, 10, CODES)
    changed[:, 6:] = 0  # padding, too, stands at the end
    torch.testing.assert_close(module({"text": changed})[:, :6], logits[:, :6], **CLOSE)
    assert not torch.allclose(module({"text": changed})[:, 6:], logits[:, 6:], **CLOSE)
    changed = x.clone()
    changed[:, 2] = (x[:, 2] - 4) % (CODES - 5) + 5
    assert not torch.allclose(module({"text": changed})[:, 9], logits[:, 9], **CLOSE)


@pytest.mark.parametrize("options", OPTIONS)
def test_logits_of_tokens_in_pieces_are_those_of_the_whole(options):
    module, x = lively(built(**options)), tokens(3, 12)
    with torch.no_grad():
        whole, cache = module({"text": x}), module.cache(3, 12)
        sizes = [3, 1, 4]
        first = module.extend(x[:, :4], cache, sizes)
        then = module.extend(
            torch.stack([x[row, size : size + 1] for row, size in enumerate(sizes)]), cache
        )
    for row, size in enumerate(sizes):
        torch.testing.assert_close(first[row, :size], whole[row, :size], **CLOSE)
        torch.testing.assert_close(then[row, 0], whole[row, size], **CLOSE)
    assert cache.lengths.tolist() == [4, 2, 5]


def test_the_first_loss_is_that_of_guessing():
    module, x = built(), tokens(20, 12)
    loss = functional.cross_entropy(module({"text": x}).flatten(0, 1), x.flatten())
    assert abs(loss.item() - math.log(CODES)) < 0.1  # logits of a spread of 0.1 cost 0.1 ** 2 / 2


def test_a_tied_head_has_no_weights_of_its_own():
    tied, free = built(tied=True), built()
    assert free.head is not None and tied.head is None
    count = {
        name: sum(each.numel() for each in module.parameters())
        for name, module in (("tied", tied), ("free", free))
    }
    assert count["free"] - count["tied"] == CODES * 32


def test_sizes_by_name_and_numbers_over_them():
    assert Config(size="gpt2").resolved() == (12, 12, 768)
    assert Config(size="gpt2", num_layers=3, width=96).resolved() == (3, 12, 96)
    for name, (layers, heads, width) in SIZES.items():
        assert Config.model_validate({"size": name}).resolved() == (layers, heads, width)


def test_nano_has_at_most_the_parameters_of_nanogpts():
    module = registry.build_model(
        Part("gpt", Config(size="nano")),
        {"text": InputSpec("tokens", (64,), cardinalities=(70,))},
        OutputSpec(70),
    )
    assert sum(each.numel() for each in module.parameters()) <= 850_000


def test_numbers_that_do_not_divide_are_refused_in_words():
    for options, said in (
        ({"width": 30}, "no multiple of num_heads"),
        ({"width": 12}, "rotate pairs of features"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads"),
    ):
        with pytest.raises(ValidationError, match=said):
            Config.model_validate({"size": "tiny", **options})


def test_what_is_no_text_is_refused():
    part = Part("gpt", Config(size="tiny"))
    with pytest.raises(PartError, match="reads one text"):
        registry.build_model(
            part,
            {"words": InputSpec("tokens", (12, 2), cardinalities=(9, 5))},
            OutputSpec(9, per="token"),
        )
    with pytest.raises(PartError, match="the next of the 23 tokens"):
        registry.build_model(part, TEXT, OutputSpec(7, per="token"))


def test_a_text_beyond_learned_positions_is_refused_and_rotary_ones_go_on():
    with pytest.raises(PartError, match="positions for 12 tokens, and a text has 13"):
        built(positions="learned")({"text": tokens(1, 13)})
    assert built()({"text": tokens(1, 40)}).shape == (1, 40, CODES)


def test_muon_gets_no_embedding_and_no_head():
    module = built(positions="learned")
    config = registry.config("optimizers", "muon").model_validate({})
    groups = parameter_groups(module, Part("muon", config))
    apart = {id(each) for group in groups if group.get("muon") is False for each in group["params"]}
    assert module.head is not None and module.positions is not None
    assert apart == {
        id(each) for each in (module.embedding.weight, module.positions.weight, module.head.weight)
    }
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    adamw = parameter_groups(
        module, Part("adamw", registry.config("optimizers", "adamw").model_validate({}))
    )
    assert all("muon" not in group for group in adamw)


def test_bfloat16_gives_nearly_the_same_gradient():
    module, x = built(), tokens(4, 12)
    gradients = []
    for narrow in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            logits = module({"text": x})
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
        gradients.append(
            torch.cat(
                [each.grad.flatten() for each in module.parameters() if each.grad is not None]
            )
        )
    # bfloat16 keeps 8 bits: each of a few products in a row is off by 0.4 %, in random directions
    assert functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_it_is_the_llama_of_transformers_where_its_options_say_so():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    module = lively(built(num_key_value_heads=2, feed_forward="swiglu", qk_norm=False))
    config = transformers.LlamaConfig(
        vocab_size=CODES, hidden_size=32, intermediate_size=module.stack.blocks[0].feed_forward.up.out_features, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config).eval()
    names = {
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj", "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj", "feed_forward.gate": "mlp.gate_proj", "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj", "attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
    }  # fmt: skip
    ours, state = module.state_dict(), {}
    for number in range(2):
        for one, other in names.items():
            state[f"model.layers.{number}.{other}.weight"] = ours[
                f"stack.blocks.{number}.{one}.weight"
            ]
    state |= {
        "model.embed_tokens.weight": ours["embedding.weight"],
        "lm_head.weight": ours["head.weight"],
    }
    state["model.norm.weight"] = ours["stack.norm.weight"]
    llama.load_state_dict(state)
    x = tokens(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(module({"text": x}), llama(x).logits, **CLOSE)
