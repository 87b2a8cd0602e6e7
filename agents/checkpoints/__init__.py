"""Parts of transformers checkpoints served as modules: what each part is, schemas/architectures/ says."""
