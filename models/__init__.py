"""Recognition models for sound and picture: clips, front ends, model families, checkpoints and training.

Nothing heavy is imported here, so that `import models` costs nothing before a model is needed.
"""

from models import torchaudio_support

torchaudio_support.install()
