"""What would train plainly, or on the wrong thing, without a word, is refused."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from tokensieve import SelectionPolicy, make_selective
from tokensieve.errors import UserError
from tokensieve.integrations.trainer import attach


def inputs_of_two_rows():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (2, 24), generator=generator)
    return {"input_ids": ids, "labels": ids, "reference_loss": torch.rand(2, 24, generator=generator) * 6}


def test_a_loss_of_eval_mode_cannot_be_trained_on_but_can_be_read(tiny):
    model = tiny().eval()
    make_selective(model, SelectionPolicy())
    loss = model(**inputs_of_two_rows()).loss
    with pytest.raises(ValueError, match=r"call model.train\(\) before training"):
        loss.backward()
    model.train()
    model(**inputs_of_two_rows()).loss.backward()


def test_columns_without_labels_are_refused_in_training(tiny):
    model = tiny()
    make_selective(model, SelectionPolicy())
    inputs = inputs_of_two_rows()
    del inputs["labels"]
    with pytest.raises(ValueError, match="reference_loss without labels"):
        model(**inputs)


def test_log_probabilities_are_no_losses(tiny):
    model = tiny()
    make_selective(model, SelectionPolicy())
    inputs = inputs_of_two_rows()
    with pytest.raises(ValueError, match="a loss is finite and not negative"):
        model(**{**inputs, "reference_loss": -inputs["reference_loss"]})


@pytest.mark.parametrize("name", ["token_index", "document_ids"])
def test_positions_in_floating_point_are_refused(tiny, name):
    model = tiny()
    make_selective(model, SelectionPolicy("random", 0.5))
    inputs = {**inputs_of_two_rows(), "token_index": torch.arange(48).view(2, 24)}
    with pytest.raises(TypeError, match=f"{name} is torch.float32: use int64"):
        model(**{**inputs, name: torch.arange(48.0).view(2, 24)})


def test_a_count_of_no_items_shows(tiny):
    model = tiny()
    make_selective(model, SelectionPolicy())
    assert torch.isinf(model(**inputs_of_two_rows(), num_items_in_batch=0).loss)


def test_a_head_replaced_after_the_patch_is_refused(tiny):
    model = tiny()
    make_selective(model, SelectionPolicy())
    model.resize_token_embeddings(70)
    with pytest.raises(ValueError, match="the head was replaced"):
        model(**inputs_of_two_rows())


def test_wrapped_models_are_refused_by_name(tiny):
    with pytest.raises(TypeError, match="DataParallel is not a transformers model"):
        make_selective(torch.nn.DataParallel(tiny()), SelectionPolicy())


def test_a_trainer_that_makes_another_model_is_refused(tiny, tmp_path):
    rows = [{name: column[0] for name, column in inputs_of_two_rows().items()}]
    options = TrainingArguments(str(tmp_path), max_steps=1, remove_unused_columns=False, use_cpu=True)
    trainer = Trainer(model_init=lambda: tiny(), args=options, train_dataset=rows)
    attach(trainer, make_selective(trainer.model.train(), SelectionPolicy()))
    with pytest.raises(UserError, match="trains another model than the one that was patched"):
        trainer.train()


def test_a_run_in_which_nothing_is_selected_stops(tiny, tmp_path):
    rows = [{name: column[0] for name, column in inputs_of_two_rows().items()}]
    options = TrainingArguments(
        str(tmp_path), max_steps=12, logging_steps=5, remove_unused_columns=False, use_cpu=True, disable_tqdm=True
    )
    model = tiny()
    handle = make_selective(model, SelectionPolicy(threshold=50.0))
    trainer = Trainer(model, options, train_dataset=rows)
    attach(trainer, handle)
    with pytest.raises(UserError, match="no token was selected up to step 10"):
        trainer.train()


def test_filtered_backward_is_plain_training_where_everything_is_selected(tiny):
    def gradients(backward):
        model, inputs = tiny(), inputs_of_two_rows()
        make_selective(model, SelectionPolicy(ratio=1), backward=backward)
        inputs["labels"] = inputs["labels"].clone()
        inputs["labels"][:, :16] = -100
        model(**inputs).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    for filtered, exact in zip(gradients("filtered"), gradients("exact"), strict=True):
        torch.testing.assert_close(filtered, exact)


def test_a_soft_cap_that_is_not_known_is_refused_on_a_fresh_model_too():
    class Capped(LlamaForCausalLM):
        def forward(self, *args, labels=None, **options):
            outputs = super().forward(*args, **options)
            outputs.logits = 30 * torch.tanh(outputs.logits / 30)
            if labels is not None:
                outputs.loss = self.loss_function(outputs.logits, labels, self.config.vocab_size)
            return outputs

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ValueError, match="does more than scale, bias and soft cap"):
        make_selective(Capped(LlamaConfig(vocab_size=61, **shape)), SelectionPolicy())


def test_a_nan_under_a_live_label_is_told_with_its_place(tiny):
    model = tiny()
    make_selective(model, SelectionPolicy())
    inputs = inputs_of_two_rows()
    inputs["reference_loss"][1, 5] = float("nan")
    with pytest.raises(ValueError, match="reference_loss is NaN under 1 live labels, first in row 1, position 5"):
        model(**inputs)


def test_attaching_twice_is_refused(tiny, tmp_path):
    model = tiny()
    handle = make_selective(model, SelectionPolicy())
    trainer = Trainer(model, TrainingArguments(str(tmp_path), remove_unused_columns=False, use_cpu=True))
    attach(trainer, handle)
    with pytest.raises(UserError, match="attach once"):
        attach(trainer, handle)


def test_the_base_model_can_be_scored_while_a_trained_head_is_switched_off(tiny):
    peft = pytest.importorskip("peft")
    base = tiny()
    inputs = {name: column for name, column in inputs_of_two_rows().items() if name != "reference_loss"}
    handle = make_selective(base, SelectionPolicy())
    expected, _ = handle.token_losses(**inputs)
    handle.remove()
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    handle = make_selective(model, SelectionPolicy())
    with torch.no_grad():
        model.get_base_model().lm_head.modules_to_save["default"].weight.mul_(2)
    assert not torch.allclose(handle.token_losses(**inputs)[0], expected)
    with model.disable_adapter():
        torch.testing.assert_close(handle.token_losses(**inputs)[0], expected)
