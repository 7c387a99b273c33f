"""The plan's numbers: against hand-made sums, against real modules, and against the paper's own bill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

import tokensieve.recipes
from tokensieve.errors import UserError
from tokensieve.planning import HARDWARE, format_plan, plan
from tokensieve.planning.costs import forward_flops, training_flops
from tokensieve.planning.memory import training_memory
from tokensieve.planning.shape import KNOWN, model_shape
from tokensieve.recipe import ModelSection, Recipe, build, load_recipe

PAPER = Path(tokensieve.recipes.__path__[0]) / "paper"
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
}


def tiny_recipe(out: Path, **changes: Any) -> Recipe:
    data: dict[str, Any] = {
        "out": str(out),
        "model": {"fresh": TINY},
        "tokenizer": {"train_vocab": 300},
        "context": {"length": 16},
        "corpus": {"sources": [{"path": "corpus.jsonl"}]},
        "reference": {"sources": [{"path": "clean.jsonl"}], "epochs": 3},
        "train": {"tokens": 10_000, "trainer": {"per_device_train_batch_size": 4}},
        "plan": {"corpus_tokens": 8_000, "clean_tokens": 1_000},
    }
    return build(Recipe, {**data, **changes}, "recipe.yaml")


def stages(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in result["stages"]}


@pytest.mark.parametrize(
    ("name", "gpu_hours", "utilisation"),
    # Hours that the paper states for 32 H100: 3.5, 18 and 19; the share of the peak they imply.
    [("math-1b", 112, 0.254), ("math-7b", 576, 0.336), ("general-1b", 608, 0.249)],
)
def test_the_selective_arm_costs_what_the_paper_paid(name: str, gpu_hours: float, utilisation: float) -> None:
    recipe = load_recipe(PAPER / f"{name}.yaml")
    slm = stages(plan(recipe))["slm"]
    assert slm["device_hours"] == pytest.approx(gpu_hours, rel=0.17)
    implied = slm["flops"] / (gpu_hours * 3600 * 989e12)
    assert implied == pytest.approx(utilisation, abs=0.002)
    exact = stages(plan(recipe, utilisation=implied))["slm"]
    assert exact["device_hours"] == pytest.approx(gpu_hours)
    assert exact["hours"] == pytest.approx(gpu_hours / 32)


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_paper_recipe_fits_its_hardware_and_plans_without_network(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoConfig, "from_pretrained", None)
    result = plan(load_recipe(path))
    assert result["warnings"] == []
    assert all(stage["memory_gb"] < 0.9 * 80 for stage in result["stages"])
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # As counted by loading the published weights.
    [
        ("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", 1_100_048_384),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_known_architectures_have_the_published_number_of_parameters(
    name: str, parameters: int, tmp_path: Path
) -> None:
    assert name in KNOWN
    assert model_shape(ModelSection(name=name), tiny_recipe(tmp_path)).parameters == parameters


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_matrix_weights_are_those_that_a_forward_pass_multiplies(model_type: str, tied: bool, tmp_path: Path) -> None:
    fresh: dict[str, Any] = {**TINY, "model_type": model_type, "tie_word_embeddings": tied}
    if model_type == "gpt2":
        fresh = {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4, "tie_word_embeddings": tied}
    shape = model_shape(ModelSection(fresh=fresh), tiny_recipe(tmp_path))
    config = AutoConfig.for_model(**{"vocab_size": 300, **fresh})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, 16, dtype=torch.long), use_cache=False)
    # Eager attention multiplies the upper triangle too: 16 keys a token instead of 8.5 on average. Rotary
    # positions are a product of T and half a head, below a thousandth.
    square = 3 * 4.0 * shape.attention_width * (16 - 8.5) * 16
    assert counter.get_total_flops() == pytest.approx(forward_flops(shape, 16) * 16 + square, rel=2e-3)


def test_stages_add_up_by_hand(tmp_path: Path) -> None:
    result = plan(tiny_recipe(tmp_path), hardware="a100", devices=2, utilisation=0.5)
    found = stages(result)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 80
    head = 300 * 32
    forward = 2 * 3 * layer + 3 * 4 * 32 * 8.5
    assert found["reference"]["flops"] == pytest.approx(3_000 * (3 * forward + 6 * head))
    assert found["score"]["flops"] == pytest.approx(8_000 * (forward + 2 * head))
    assert found["clm"]["flops"] == pytest.approx(10_000 * (3 * forward + 6 * head))
    assert found["random"]["flops"] == pytest.approx(10_000 * (3 * forward + 3.6 * head))
    assert found["slm"]["flops"] == pytest.approx(10_000 * (3 * forward + 5.6 * head))
    assert [found[arm]["selected"] for arm in ("clm", "random", "slm")] == [10_000, 6_000, 6_000]
    assert found["slm"]["tokens_per_step"] == 4 * 2 * 16
    assert found["slm"]["steps"] == 10_000 // 128
    seconds = found["slm"]["flops"] / (312e12 * 0.5)
    assert found["slm"]["device_hours"] == pytest.approx(seconds / 3600)
    assert found["slm"]["hours"] == pytest.approx(seconds / 3600 / 2)
    # Scoring is a worker for each device.
    assert found["score"]["hours"] == pytest.approx(found["score"]["device_hours"] / 2)
    assert result["total"]["flops"] == pytest.approx(sum(stage["flops"] for stage in result["stages"]))


@pytest.mark.parametrize(
    ("selection", "units"),
    [
        ({"score": "excess_loss", "ratio": 0.5}, 5.0),
        ({"score": "reference_loss", "ratio": 0.5}, 3.0),
        ({"score": "excess_loss", "ratio": 1.0}, 6.0),
    ],
)
def test_a_score_without_live_loss_saves_the_first_pass(
    selection: dict[str, Any], units: float, tmp_path: Path
) -> None:
    train = {"tokens": 10_000, "selection": selection, "arms": ["slm", "clm"]}
    found = stages(plan(tiny_recipe(tmp_path, train=train)))
    difference = found["clm"]["flops_per_token"] - found["slm"]["flops_per_token"]
    assert difference == pytest.approx((6 - units) * 300 * 32)


def test_sliding_windows_bound_attention(tmp_path: Path) -> None:
    shape = model_shape(
        ModelSection(fresh={**TINY, "model_type": "mistral", "sliding_window": 4}), tiny_recipe(tmp_path)
    )
    keys = sum(min(position + 1, 4) for position in range(16)) / 16
    assert forward_flops(shape, 16) == pytest.approx(2 * (shape.backbone + shape.head) + 3 * 4 * 32 * keys)


def test_checkpointed_activations_cost_one_more_forward_and_less_memory(tmp_path: Path) -> None:
    shape = model_shape(ModelSection(fresh=TINY), tiny_recipe(tmp_path))
    extra = training_flops(shape, 16, recompute=True) - training_flops(shape, 16)
    assert extra == pytest.approx(forward_flops(shape, 16) - 2 * shape.head)
    plain = training_memory(shape, "float32", {}, 1, 1000)
    for trainer in (
        {"activation_checkpointing": True},
        {"gradient_checkpointing": True},
        {"fsdp": True, "fsdp_config": {"activation_checkpointing": True}},
    ):
        assert training_memory(shape, "float32", trainer, 1, 1000).activations < plain.activations


def test_memory_of_weights_gradients_and_optimizer(tmp_path: Path) -> None:
    shape = model_shape(ModelSection(fresh=TINY), tiny_recipe(tmp_path))
    whole = training_memory(shape, "float32", {"bf16": True}, 1, 0)
    assert whole.total == (4 + 4 + 8 + 2) * shape.parameters
    assert training_memory(shape, "float32", {"bf16": True}, 8, 0).total == (4 + 4 + 8 + 2 + 4) * shape.parameters
    sharded = training_memory(shape, "float32", {"bf16": True, "fsdp": True}, 8, 0)
    assert sharded.weights + sharded.gradients + sharded.optimizer == 16 * shape.parameters / 8
    assert training_memory(shape, "bfloat16", {}, 1, 0).total == 8 * shape.parameters


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("key_value_heads", [1, 4])
def test_activations_are_what_autograd_saves(autocast: bool, key_value_heads: int, tmp_path: Path) -> None:
    fresh = {**TINY, "hidden_size": 128, "intermediate_size": 352, "num_key_value_heads": key_value_heads}
    shape = model_shape(ModelSection(fresh=fresh), tiny_recipe(tmp_path))

    def saved(layers: int, rows: int) -> int:
        settings = {"vocab_size": 300, **fresh, "num_hidden_layers": layers}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).model
        alive, sizes = [], {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            alive.append(tensor)  # so that no address is used twice
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        ids = torch.zeros(rows, 64, dtype=torch.long)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            model(input_ids=ids, use_cache=False)
        return sum(sizes.values())

    # One layer more and four rows more: embedding, final norm and weights fall out of the differences.
    measured = ((saved(3, 6) - saved(2, 6)) - (saved(3, 2) - saved(2, 2))) / (4 * 64)
    estimate = training_memory(shape, "float32", {"bf16": autocast}, 1, 1).activations / shape.layers
    assert estimate == pytest.approx(measured, rel=0.01)


def test_storage(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, score={"entropy": True})
    storage = plan(recipe)["storage"]
    parameters = plan(recipe)["models"]["student"]["parameters"]
    assert storage["token store"] == pytest.approx(2 * 8_000 / 1e9)
    assert storage["score store"] == pytest.approx(4 * 8_000 / 1e9, rel=1e-3)
    assert storage["models"] == pytest.approx(3 * 4 * parameters / 1e9)
    assert storage["checkpoints"] == pytest.approx(2 * 12 * parameters / 1e9)
    along = tiny_recipe(tmp_path, train={"tokens": 10_000, "save_at": [0, 5_000]})
    assert plan(along)["storage"]["models"] == pytest.approx(3 * 3 * 4 * parameters / 1e9)
    asked = tiny_recipe(tmp_path, train={"tokens": 10_000, "trainer": {"save_total_limit": 1}, "arms": ["clm", "slm"]})
    assert plan(asked)["storage"]["checkpoints"] == pytest.approx(2 * 12 * parameters / 1e9)
    wide = tiny_recipe(tmp_path, tokenizer={"train_vocab": 70_000})
    assert plan(wide)["storage"]["token store"] == pytest.approx(4 * 8_000 / 1e9)
    assert storage["total"] == pytest.approx(sum(size for name, size in storage.items() if name != "total"))


def test_sizes_come_from_arguments_then_finished_stores_then_the_recipe(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    assert plan(recipe)["corpus_tokens"] == 8_000
    (tmp_path / "corpus").mkdir()
    manifest = tmp_path / "corpus" / "corpus.json"
    manifest.write_text(json.dumps({"inputs": {}, "finished": False, "outputs": {}}))
    assert plan(recipe)["corpus_tokens"] == 8_000
    manifest.write_text(json.dumps({"inputs": {}, "finished": True, "outputs": {"tokens": 7_777}}))
    assert plan(recipe)["corpus_tokens"] == 7_777
    assert plan(recipe, corpus_tokens=9_999)["corpus_tokens"] == 9_999
    bare = tiny_recipe(tmp_path, plan={"corpus_tokens": 8_000})
    with pytest.raises(UserError, match=r"clean: its size is unknown.*plan\.clean_tokens=NUMBER"):
        plan(bare)


def test_a_score_that_needs_no_reference_costs_none(tmp_path: Path) -> None:
    train = {"tokens": 10_000, "selection": {"score": "current_loss"}}
    result = plan(tiny_recipe(tmp_path, train=train))
    assert [stage["name"] for stage in result["stages"]] == ["clm", "random", "slm"]
    assert result["storage"]["score store"] == result["storage"]["reference model"] == 0


def test_an_existing_reference_costs_scoring_only(tmp_path: Path) -> None:
    reference = {"existing": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"}
    result = plan(tiny_recipe(tmp_path, reference=reference, plan={"corpus_tokens": 8_000}))
    assert [stage["name"] for stage in result["stages"]] == ["score", "clm", "random", "slm"]
    assert result["models"]["reference"]["parameters"] == 1_100_048_384
    assert result["storage"]["reference model"] == 0


def test_local_folders_are_counted_from_their_configuration(tmp_path: Path) -> None:
    AutoConfig.for_model(**{**TINY, "vocab_size": 300}).save_pretrained(tmp_path / "model")
    recipe = tiny_recipe(tmp_path, model={"name": str(tmp_path / "model")})
    assert model_shape(recipe.model, recipe).parameters == model_shape(ModelSection(fresh=TINY), recipe).parameters


def test_warnings_name_what_does_not_fit(tmp_path: Path) -> None:
    big = load_recipe(PAPER / "math-7b.yaml", ["train.trainer.fsdp=null", "context.length=65536"])
    text = "\n".join(plan(big)["warnings"])
    assert "slm: about" in text and "trainer.fsdp: true" in text
    assert "context.length 65536 is above the 32768 of mistralai/Mistral-7B-v0.1" in text
    other = tiny_recipe(tmp_path, train={"tokens": 10_000, "trainer": {"optim": "adafactor", "deepspeed": "x.json"}})
    text = "\n".join(plan(other)["warnings"])
    assert "train.trainer.optim adafactor" in text and "train.trainer.deepspeed" in text


def test_cores_of_one_machine_share_one_replica(tmp_path: Path) -> None:
    one, four = (plan(tiny_recipe(tmp_path), hardware="cpu-core", devices=count) for count in (1, 4))
    assert stages(four)["slm"]["tokens_per_step"] == stages(one)["slm"]["tokens_per_step"] == 4 * 16
    assert stages(four)["score"]["hours"] == pytest.approx(stages(one)["score"]["hours"] / 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hardware": "h10"}, "unknown hardware 'h10'; did you mean 'h100'?"),
        ({"devices": 0}, "devices must be at least 1, not 0"),
        ({"utilisation": 1.5}, r"utilisation must be in \(0, 1\], not 1.5"),
        ({"corpus_tokens": 0}, "corpus_tokens must be at least 1, not 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        plan(tiny_recipe(tmp_path), **arguments)


def test_models_that_cannot_be_counted_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise OSError("We couldn't connect to the Hub.\nSecond line.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    recipe = tiny_recipe(tmp_path)
    with pytest.raises(UserError, match="model some/where: cannot read its config.json .*local model folder") as error:
        model_shape(ModelSection(name="some/where"), recipe)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="model.fresh: model_type is missing"):
        model_shape(ModelSection(fresh={"hidden_size": 8}), recipe)
    with pytest.raises(UserError, match="model.fresh: .*lama"):
        model_shape(ModelSection(fresh={"model_type": "lama"}), recipe)
    experts = {**TINY, "model_type": "mixtral", "num_local_experts": 2}
    with pytest.raises(UserError, match="dense transformers only"):
        model_shape(ModelSection(fresh=experts), recipe)


def test_the_table_shows_every_stage_and_warning() -> None:
    result = plan(load_recipe(PAPER / "math-7b.yaml"), hardware="rtx4090")
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(format_plan(result))
    text = console.export_text()
    for word in (
        "reference",
        "score",
        "clm",
        "random",
        "slm",
        "10.5B",
        "14,305",
        "RTX 4090",
        "warning: slm",
        "7.24B",
    ):
        assert word in text


def test_hardware_is_sane() -> None:
    for hardware in HARDWARE.values():
        assert hardware.teraflops > 0 and hardware.memory_gb > 0


def test_an_online_reference_costs_a_forward_pass_of_each_batch_and_its_memory(tmp_path):
    stored = plan(tiny_recipe(tmp_path), hardware="a100", devices=2)
    online = plan(tiny_recipe(tmp_path, score={"online": True}), hardware="a100", devices=2)
    before, after = ({stage["name"]: stage for stage in result["stages"]} for result in (stored, online))
    assert "score" not in after and "reference" in after
    per_token = before["score"]["flops_per_token"]
    assert after["slm"]["flops_per_token"] == pytest.approx(before["slm"]["flops_per_token"] + per_token)
    assert after["slm"]["flops"] == pytest.approx(after["slm"]["flops_per_token"] * after["slm"]["tokens"])
    assert after["slm"]["memory_gb"] > before["slm"]["memory_gb"]
    assert after["random"] == before["random"] and after["clm"] == before["clm"]
    assert online["storage"]["score store"] == 0 and online["storage"]["reference model"] > 0
