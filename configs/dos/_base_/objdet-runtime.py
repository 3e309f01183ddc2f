"""What all detections in the host share: loader, evaluator, precision and trainer.

Figures in training come from the boxes of the data set; those of a benchmark from its own tools.
"""

custom_imports = dict(imports=["dos_plugin.register"], allow_failed_imports=False)

resume = False  # whether to resume training process
evaluate = True
test_only = False
seed = 0
batch_size_val = None
batch_size_test = None
gradient_accumulation_steps = 1
mix_prob = 0  # scans with boxes cannot be mixed
clip_grad = 10.0
sync_bn = False
enable_amp = False
amp_dtype = "bfloat16"
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
wandb_project = "dos"
wandb_key = None

train = dict(type="DefaultTrainer")
