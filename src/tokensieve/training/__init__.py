"""Recipe section -> stock transformers Trainer: models, arguments, the loop, metrics, model cards."""
