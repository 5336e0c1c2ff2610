"""Layer-wise learning-rate decay: the layers found, the groups made, and timm's and BEiT's own."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import sys
import types

import pytest
import torch
import transformers
from torch import nn

from stepsize import Cosine, FieldError, Linear
from stepsize.torch import Scheduler
from stepsize.torch.layers import layer_decay

RATE, LR, DECAY = 0.75, 1e-3, 0.05


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(width, 2)) for _ in range(heads))


class Block(nn.Module):
    """Its heads and experts are lists of alike modules too."""

    def __init__(self, width=4, heads=2, experts=2):
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))
            for _ in range(experts)
        )


class NanoGPT(nn.Module):
    def __init__(self, layers=3, *, tied=True):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(7, 4),
                "wpe": nn.Embedding(5, 4),
                "drop": nn.Dropout(0.1),
                "h": nn.ModuleList(Block() for _ in range(layers)),
                "ln_f": nn.LayerNorm(4),
            }
        )
        self.lm_head = nn.Linear(4, 7, bias=False)
        if tied:
            self.transformer["wte"].weight = self.lm_head.weight


class Stage(nn.Module):
    def __init__(self, width, blocks):
        super().__init__()
        self.downsample = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.blocks = nn.Sequential(*(Block(2 * width) for _ in range(blocks)))


class Hierarchy(nn.Module):
    def __init__(self, blocks=(2, 1, 3)):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 2))
        self.scale = nn.Parameter(torch.ones(()))
        self.stem = nn.Linear(3, 2)
        self.stages = nn.ModuleList(Stage(2 * 2**i, n) for i, n in enumerate(blocks))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)


def told(model, rate=RATE, **fields):
    """Give (rate's factor, weight decay) by parameter name; each trainable one exactly once."""
    groups = layer_decay(model, rate, **{"lr": LR, "weight_decay": DECAY, **fields})
    names = {id(p): n for n, p in model.named_parameters()}
    rows = [(names[id(p)], g["lr"] / LR, g["weight_decay"]) for g in groups for p in g["params"]]
    wanted = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(n for n, _, _ in rows) == sorted(wanted)
    return {name: (scale, decay) for name, scale, decay in rows}


def depths(model, **fields):
    """Give how many layers below the last one each parameter is, as a negative number."""
    return {
        name: round(math.log(scale) / math.log(1 / RATE))
        for name, (scale, _) in told(model, **fields).items()
    }


def below(found, start):
    """Give the depths of all parameters whose names start so."""
    return {depth for name, depth in found.items() if name.startswith(start)}


# Groups --------------------------------------------------------------------------------------


def test_groups_are_plain_named_and_in_ascending_depth():
    groups = layer_decay(NanoGPT(), RATE, lr=LR, weight_decay=DECAY)
    assert [g["name"] for g in groups] == [
        "layer_0",
        "layer_1",
        "layer_1_no_decay",
        "layer_2",
        "layer_2_no_decay",
        "layer_3",
        "layer_3_no_decay",
        "layer_4_no_decay",
    ]
    for group in groups:
        assert list(group) == ["params", "name", "lr", "weight_decay"]
        assert type(group["params"]) is list
        depth = int(group["name"].split("_")[1])
        assert group["lr"] == LR * RATE ** (4 - depth)
        assert group["weight_decay"] == (0.0 if "no_decay" in group["name"] else DECAY)
        assert type(group["lr"]) is type(group["weight_decay"]) is float


def test_a_rate_of_1_leaves_the_rates_alone():
    assert {g["lr"] for g in layer_decay(NanoGPT(), 1, lr=LR)} == {LR}


def test_without_weight_decay_the_groups_are_the_same():
    names = [[g["name"] for g in layer_decay(NanoGPT(), 0.5, lr=1, weight_decay=w)] for w in (0, 1)]
    assert names[0] == names[1]


def test_frozen_parameters_are_left_out_and_their_layers_count():
    model, frozen = NanoGPT(tied=False), NanoGPT(tied=False)
    parts = frozen.transformer
    for part in (parts["wte"], parts["h"][0], parts["ln_f"], frozen.lm_head):
        part.requires_grad_(False)
    every = told(model)
    left = told(frozen)
    assert left == {n: row for n, row in every.items() if n in left}
    assert "transformer.h.0.ln.weight" not in left


def test_a_tied_weight_is_where_it_comes_first():
    found = depths(NanoGPT(tied=True))
    assert found["transformer.wte.weight"] == -4
    assert "lm_head.weight" not in found
    assert depths(NanoGPT(tied=False))["lm_head.weight"] == 0


# Which layers are found ----------------------------------------------------------------------


def test_blocks_of_a_hand_written_gpt_are_its_layers_not_its_heads_or_experts():
    found = depths(NanoGPT())
    assert below(found, "transformer.w") == {-4}
    assert [below(found, f"transformer.h.{i}.") for i in range(3)] == [{-3}, {-2}, {-1}]
    assert below(found, "transformer.ln_f") == {0}


def test_stages_hold_the_blocks_and_what_is_between_goes_with_the_next():
    found = depths(Hierarchy())
    assert {found["token"]} == below(found, "stem") == {-7}
    blocks = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    for i, (stage, block) in enumerate(blocks):
        assert below(found, f"stages.{stage}.blocks.{block}.") == {i - 6}
    assert [below(found, f"stages.{s}.downsample") for s in range(3)] == [{-7}, {-4}, {-3}]
    assert below(found, "norm") == below(found, "head") == {0}


def test_stages_of_one_block_each_are_blocks():
    found = depths(Hierarchy((1, 1, 1)))
    assert [below(found, f"stages.{s}.") for s in range(3)] == [{-3}, {-2}, {-1}]


def test_a_stage_of_several_classes_is_one_block():
    odd = nn.Sequential(Block(), nn.Linear(4, 4))
    stages = nn.Sequential(odd, nn.Sequential(Block(), Block()), nn.Sequential(Block()))
    found = depths(stages)
    starts = ("0.0", "0.1", "1.0.", "1.1.", "2.0.")
    assert [below(found, start) for start in starts] == [{-3}, {-3}, {-2}, {-1}, {0}]


def test_lists_in_a_list_are_stages_even_if_they_are_alike():
    found = depths(nn.Sequential(*(nn.Sequential(Block(), Block()) for _ in range(2))))
    starts = ("0.0.", "0.1.", "1.0.", "1.1.")
    assert [below(found, start) for start in starts] == [{-3}, {-2}, {-1}, {0}]


def test_blocks_in_two_lists_count_once():
    blocks = nn.ModuleList([Block(), Block()])
    model = nn.ModuleDict({"in": nn.Linear(1, 4), "h": blocks, "g": nn.ModuleList(blocks)})
    found = depths(model)
    assert [below(found, start) for start in ("in", "h.0", "h.1")] == [{-2}, {-1}, {0}]


def test_torch_transformer_encoder():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoder(layer, 3), nn.Linear(4, 2))
    found = depths(model)
    assert below(found, "0.") == {-4}
    assert [below(found, f"1.layers.{i}.") for i in range(3)] == [{-3}, {-2}, {-1}]
    assert below(found, "2.") == {0}


def test_an_encoder_and_its_decoder_are_counted_through():
    found = depths(nn.Transformer(4, 2, 2, 3, 8, batch_first=True))
    assert [below(found, f"encoder.layers.{i}.") for i in range(2)] == [{-5}, {-4}]
    assert below(found, "encoder.norm") == {-3}  # with the block that follows
    assert [below(found, f"decoder.layers.{i}.") for i in range(3)] == [{-3}, {-2}, {-1}]
    assert below(found, "decoder.norm") == {0}


def test_the_greatest_depth_is_that_of_the_last_parameter_there_is():
    found = told(nn.Sequential(Block(), Block()))
    assert {scale for name, (scale, _) in found.items() if name.startswith("1.")} == {1.0}
    assert {scale for name, (scale, _) in found.items() if name.startswith("0.")} == {RATE}


def test_a_list_of_plain_layers_counts_where_there_is_no_other():
    assert depths(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 1))) == {
        "0.weight": -2,
        "0.bias": -2,
        "1.weight": -1,
        "1.bias": -1,
        "2.weight": 0,
        "2.bias": 0,
    }
    norms = nn.ModuleDict({"norms": nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])})
    norms["h"] = nn.ModuleList([Block(), Block()])
    assert below(depths(norms), "norms") == {-2}


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


@pytest.mark.parametrize(
    "model",
    [
        mlp(),
        NanoGPT(1),  # the heads in its only block are not its layers
        nn.ModuleDict({"h": nn.ModuleList([Block(), nn.Sequential(Block(), Block())[0], mlp()])}),
        nn.ModuleList([block := Block(), block]),
        nn.Sequential(Block()),
        nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.ReLU(), nn.ReLU()])),
        nn.Linear(2, 2),
    ],
    ids=["mlp", "one block", "classes", "one twice", "one in a row", "no parameters", "no list"],
)
def test_a_model_without_blocks_of_one_class_says_what_to_give(model):
    with pytest.raises(FieldError, match="layer_decay.model must be one that holds .* give depth="):
        layer_decay(model, RATE, lr=LR)


def test_depth_overrides_the_blocks():
    found = depths(mlp(), depth=lambda name: int(name.split(".")[0]) // 2)
    assert [below(found, f"{i}.") for i in (0, 2, 4)] == [{-2}, {-1}, {0}]


def test_a_wrapper_changes_nothing():
    model = Hierarchy()
    plain = [(g["name"], g["lr"], g["params"]) for g in layer_decay(model, RATE, lr=LR)]
    for wrapped in (nn.ModuleDict({"module": model}), torch.compile(model, backend="eager")):
        groups = layer_decay(wrapped, RATE, lr=LR)
        assert [(g["name"], g["lr"]) for g in groups] == [row[:2] for row in plain]
        for group, (_, _, params) in zip(groups, plain, strict=True):
            assert all(a is b for a, b in zip(group["params"], params, strict=True))


# Weight decay --------------------------------------------------------------------------------


def spared(model, **fields):
    return {name for name, (_, decay) in told(model, **fields).items() if decay == 0.0}


def test_biases_and_norms_have_no_weight_decay():
    model = NanoGPT()
    assert spared(model) == {n for n, p in model.named_parameters() if p.ndim <= 1}


@pytest.mark.parametrize(
    ("pattern", "also"),
    [
        ("transformer.wpe.weight", {"transformer.wpe.weight"}),
        ("wpe.weight", {"transformer.wpe.weight"}),
        ("w?e.*", {"transformer.wte.weight", "transformer.wpe.weight"}),
        ("transformer.w*", {"transformer.wte.weight", "transformer.wpe.weight"}),
        ("lm_head.weight", {"transformer.wte.weight"}),  # tied: another name of it
        ("bias", set()),
    ],
)
def test_names_ends_and_patterns_are_added(pattern, also):
    model = NanoGPT()
    assert spared(model, no_decay=(each for each in [pattern])) == spared(model) | also


def test_a_predicate_decides_alone():
    model = NanoGPT()
    model.no_weight_decay = lambda: {"transformer.wte.weight"}
    assert spared(model, no_decay=lambda _, p: p.shape == (5, 4)) == {"transformer.wpe.weight"}
    assert spared(model, no_decay=lambda _, p: False) == set()


def test_the_names_that_modules_say_themselves():
    model = Hierarchy()
    model.no_weight_decay = lambda: {"token", "a_token_that_is_not_there"}
    model.stages[1].no_weight_decay = lambda: ["downsample.1.weight"]
    extra = {"token", "stages.1.downsample.1.weight"}
    assert spared(model) == {n for n, p in model.named_parameters() if p.ndim <= 1} | extra


# Wrong values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 0}, r"layer_decay.rate must be a finite number > 0 .*<= 1, got 0"),
        ({"rate": 1.5}, r"layer_decay.rate must be .* <= 1, got 1.5"),
        ({"rate": "0.75"}, r"layer_decay.rate must be .* got '0.75'; give a plain number"),
        ({"lr": 0}, r"layer_decay.lr must be a finite number > 0, got 0"),
        ({"lr": torch.tensor(1.0)}, r"layer_decay.lr must be .* give a plain number"),
        ({"weight_decay": -1}, r"layer_decay.weight_decay must be a finite number >= 0, got -1"),
        ({"model": [nn.Linear(2, 2)]}, r"layer_decay.model must be a torch.nn.Module, got \["),
        ({"model": nn.ReLU()}, r"trainable parameters, got 'ReLU'; it has no parameters"),
        ({"model": Block().requires_grad_(False)}, r"got 'Block'; all are frozen"),
        ({"model": nn.LazyLinear(2)}, r"got 'LazyLinear'; run one batch through it first"),
        ({"depth": 3}, r"layer_decay.depth must be a function of a parameter's name, got 3"),
        ({"depth": lambda name: -1}, r"layer_decay.depth\('transformer.wte.weight'\) must be"),
        ({"depth": lambda name: "1"}, r"must be a whole number >= 0, got '1'"),
        ({"no_decay": "bias"}, r"layer_decay.no_decay must be an iterable .* got 'bias'"),
        ({"no_decay": 3}, r"layer_decay.no_decay must be an iterable .* got 3"),
        ({"no_decay": ["bias", 3]}, r"layer_decay.no_decay\[1\] must be the name .* got 3"),
        ({"no_decay": ["wpe.wieght"]}, r"got 'wpe.wieght'; did you mean 'wpe.weight'"),
        ({"no_decay": ["*.experts.0.2.wight"]}, r"did you mean '.*experts.0.2.weight'"),
        ({"no_decay": ["zzz"]}, r"got 'zzz'; see model.named_parameters\(\)"),
        ({"no_decay": ["ias"]}, r"got 'ias'; did you mean 'bias'"),
    ],
)
def test_what_is_wrong_is_said_at_once(fields, message):
    given = {"model": NanoGPT(), "rate": RATE, "lr": LR, **fields}
    model, rate = given.pop("model"), given.pop("rate")
    with pytest.raises(FieldError, match=message):
        layer_decay(model, rate, **given)


# With the scheduler --------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{}, {"foreach": True}, {"fused": True}, {"foreach": False}])
def test_the_ratios_hold_at_every_step(form):
    model, shape = nn.Sequential(Block(), Block(), Block()), Cosine(20)
    groups = layer_decay(model, RATE, lr=LR, weight_decay=DECAY)
    bases = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, **form)
    scheduler = Scheduler(optimizer, lr=shape)
    for t in range(21):
        assert [g["lr"] for g in optimizer.param_groups] == [base * shape(t) for base in bases]
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        scheduler.step()
    assert [g["weight_decay"] for g in optimizer.param_groups] == [DECAY, 0.0] * 3


def test_groups_are_addressed_by_name():
    optimizer = torch.optim.AdamW(layer_decay(NanoGPT(), 0.5, lr=LR, weight_decay=DECAY))
    special = {"layer_4_no_decay": {"lr": Linear(10)}, "layer_3": {"weight_decay": Linear(10)}}
    scheduler = Scheduler(optimizer, lr=Cosine(10), groups=special)
    by_name = {g["name"]: i for i, g in enumerate(optimizer.param_groups)}
    found = scheduler.at(5)
    assert found["lr"][by_name["layer_4_no_decay"]] == LR * 0.5
    assert found["weight_decay"][by_name["layer_3"]] == DECAY * 0.5


def test_a_resumed_run_goes_on_with_the_same_groups():
    def made():
        torch.manual_seed(0)
        groups = layer_decay(nn.Sequential(Block(), Block()), RATE, lr=LR, weight_decay=DECAY)
        optimizer = torch.optim.AdamW(groups)
        return optimizer, Scheduler(optimizer, lr=Cosine(10))

    optimizer, scheduler = made()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    again, follower = made()
    again.load_state_dict(optimizer.state_dict())
    follower.load_state_dict(scheduler.state_dict())
    assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert [g["name"] for g in again.param_groups] == [g["name"] for g in optimizer.param_groups]


# transformers --------------------------------------------------------------------------------


def test_gpt2_of_transformers():
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=3, n_head=2, n_embd=8, vocab_size=11, n_positions=6)
    )
    found = depths(model)
    assert found["transformer.wte.weight"] == found["transformer.wpe.weight"] == -4
    assert [below(found, f"transformer.h.{i}.") for i in range(3)] == [{-3}, {-2}, {-1}]
    assert below(found, "transformer.ln_f") == {0}
    assert "lm_head.weight" not in found  # tied to wte


def electra_depth(name, layers):
    """Of google-research/electra, `_get_layer_lrs`, for the names that transformers has."""
    if ".embeddings" in name:
        return 0
    if ".layer." in name:
        return int(name.split(".layer.")[1].split(".")[0]) + 1
    return layers + 2


def test_electra_has_its_head_one_power_higher():
    model = transformers.ElectraForSequenceClassification(
        transformers.ElectraConfig(
            num_hidden_layers=3,
            hidden_size=8,
            embedding_size=4,
            num_attention_heads=2,
            intermediate_size=8,
            vocab_size=11,
        )
    )
    theirs = told(model, depth=lambda name: electra_depth(name, 3))
    for name, (scale, decay) in told(model).items():
        power = 0 if name.startswith("classifier") else 1
        assert theirs[name] == (pytest.approx(scale * RATE**power, rel=1e-15), decay)


# timm and BEiT -------------------------------------------------------------------------------


class Names(type):
    """Whatever attribute is asked for is its own name."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A torchvision of names alone: timm asks for it at import, its models do without."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002 (the protocol's)
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = self.name
        return module

    def exec_module(self, module):
        """Nothing is in it."""

    @staticmethod
    def name(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Names(name, (), {})


@pytest.fixture(scope="module")
def timm():
    """The peer itself, with a stand-in for torchvision where that is not installed."""
    stub = Stub()
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(stub)
    try:
        importlib.import_module("timm.optim")
        return importlib.import_module("timm")
    finally:
        if stub in sys.meta_path:
            sys.meta_path.remove(stub)
            for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
                del sys.modules[name]


def theirs(timm, model):
    """What timm's own function says, in the form of `told`."""
    groups = timm.optim.param_groups_layer_decay(
        model,
        weight_decay=DECAY,
        no_weight_decay_list=model.no_weight_decay() if hasattr(model, "no_weight_decay") else (),
        layer_decay=RATE,
    )
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}


# Where timm puts parameters otherwise: by model, the starts of their names and how many layers
# lower timm has them. A final norm that timm's matcher gives to the last block, and a last
# convolution likewise.
KNOWN = {
    "vit_tiny_patch16_224": {"norm.": 1},
    "deit_tiny_distilled_patch16_224": {"norm.": 1},
    "beit_base_patch16_224": {},
    "swin_tiny_patch4_window7_224": {"norm.": 1},
    "convnext_atto": {},
    "davit_tiny": {},
    "hiera_tiny_224": {},
    "resnet18": {},
    "efficientnet_b0": {"conv_head.": 1, "bn2.": 1},
    "mobilenetv3_small_100": {},
}


@pytest.mark.parametrize("name", KNOWN)
def test_timm_but_for_known_differences(timm, name):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    ours, peer = told(model), theirs(timm, model)
    assert set(ours) == set(peer)
    for parameter, (scale, decay) in peer.items():
        lower = sum(n for start, n in KNOWN[name].items() if parameter.startswith(start))
        assert ours[parameter] == (pytest.approx(scale / RATE**lower, rel=1e-12), decay), parameter
    for start in KNOWN[name]:
        assert any(parameter.startswith(start) for parameter in ours), start


def beit_depth(name, layers):
    """Of microsoft/unilm, beit/optim_factory.py, `get_num_layer_for_vit`."""
    if name in ("cls_token", "mask_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    if name.startswith("rel_pos_bias"):
        return layers - 1
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return layers - 1


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_tiny_patch16_224", {}),
        ("beit_base_patch16_224", {}),
        ("beit_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
    ],
    ids=["vit", "beit", "beit, one bias for all blocks"],
)
def test_beit_but_for_a_shared_position_bias(timm, name, fields):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, **fields)
    layers = len(model.blocks) + 2
    spare, differ = model.no_weight_decay(), set()
    for parameter, (scale, decay) in told(model).items():
        power = layers - 1 - beit_depth(parameter, layers)
        if scale != pytest.approx(RATE**power, rel=1e-15):
            differ.add(parameter)
        one = model.get_parameter(parameter).ndim == 1
        assert decay == (0.0 if one or parameter.endswith(".bias") or parameter in spare else DECAY)
    # it is registered before the blocks: here and in timm an embedding, in BEiT with the head
    assert differ == ({"rel_pos_bias.relative_position_bias_table"} if fields else set())
