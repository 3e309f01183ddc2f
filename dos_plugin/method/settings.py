"""Defaults that a config may leave out and that others than the model must know, too."""

NUM_PROTOTYPES = 1024  # K (DOS, section 4)
OUT_CHANNELS = 256  # D, of the projection head (our reading: that of Sonata)
TEACHER_TEMP = 0.07  # after the warm-up (our reading: that of Sonata)
UP_CAST_LEVEL = 2  # pooling steps undone before the head (our reading: features at 4x the grid)
