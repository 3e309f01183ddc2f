"""What all segmentations share: weights, precision, hooks, trainer and tester.

Figures in training are of the val stage: one pass, the label of every point. Those of papers are
mostly of the test stage, with test-time augmentation: scripts/test.sh of the host.
"""

custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)

resume = False  # whether to resume training process
evaluate = True
test_only = False
seed = 0
batch_size_val = None
batch_size_test = None
gradient_accumulation_steps = 1
sync_bn = False
enable_amp = True
amp_dtype = "bfloat16"  # as in pretraining; the host has float16 here
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
wandb_project = "dos"
wandb_key = None

hooks = [
    dict(type="ExactResume", save_steps=1000),
    dict(type="PretrainedLoader", branch="student"),  # or teacher
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="SemSegEvaluator"),
    dict(type="CheckpointSaver", save_freq=None),
]

train = dict(type="DefaultTrainer")
test = dict(type="SemSegTester", verbose=True)
