"""What all pretrainings share: registration, precision, hooks and trainer."""

custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)

weight = None  # path to model weight
resume = False  # whether to resume training process
evaluate = False  # pretraining has no labels to evaluate with
test_only = False
seed = 0
batch_size_val = None
batch_size_test = None
gradient_accumulation_steps = 1
mix_prob = 0  # views cannot be mixed
clip_grad = 3.0
sync_bn = False
enable_amp = True
amp_dtype = "bfloat16"
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
wandb_project = "dos"
wandb_key = None

hooks = [
    dict(type="ExactResume", save_steps=1000),
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="StepWeightDecay", base_value=0.04, final_value=0.2),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq=10),
    dict(type="PrototypeMonitor"),
]

train = dict(type="DefaultTrainer")
