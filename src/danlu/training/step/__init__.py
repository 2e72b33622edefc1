"""One update: forward, loss, backward, the checks, the move. Only this folder divides a loss and moves a weight.

update.py        what every kind of update shares: learning rate, running statistics, penalties, clipping, averages
soundness.py     whether a NaN or infinity stands anywhere, and where
gradients.py     how a backward pass is started, and the gradient's length
supervised.py    one model, one loss
adversarial.py   a generator against a discriminator
"""

from danlu.training.step.adversarial import AdversarialStep
from danlu.training.step.finite_check import NonFiniteError
from danlu.training.step.gradients import backward, grad_norm
from danlu.training.step.supervised import SupervisedStep
from danlu.training.step.update import Update

__all__ = ["AdversarialStep", "NonFiniteError", "SupervisedStep", "Update", "backward", "grad_norm"]
